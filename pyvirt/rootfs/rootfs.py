"""What all root file systems have in common: nothing but being one."""

from __future__ import annotations


class RootFS:
    """A root file system: one of the classes in `pyvirt.rootfs`."""
