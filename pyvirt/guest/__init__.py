"""The default guest and the ways to act inside a guest: pure, nothing here starts anything."""

from pyvirt.guest.description import Guest as Guest
