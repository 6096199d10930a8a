"""Own real virtual machines from Python."""
