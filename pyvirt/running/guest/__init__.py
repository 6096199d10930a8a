"""Making the default guest: packages, cache, build. What it is made of is in `pyvirt.guest`."""

from pyvirt.running.guest.build import Built as Built
from pyvirt.running.guest.build import build as build
from pyvirt.running.guest.cache import Cache as Cache
