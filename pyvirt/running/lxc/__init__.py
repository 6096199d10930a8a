"""Running containers: liblxc, and what owns what it starts."""
