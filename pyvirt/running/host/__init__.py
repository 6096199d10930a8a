"""What this host has and allows: accelerators, firmware, taps, files, caches."""
