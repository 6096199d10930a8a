"""Does the host have what a description wants of it? Asked when a VM starts."""

from __future__ import annotations

from pyvirt.errors import UnsupportedError
from pyvirt.qemu.need import HostPath


def check(need: HostPath) -> str:
    """The path, which is there. Raises `UnsupportedError` with the need's hint."""
    if not need.path.exists():
        raise UnsupportedError(str(need.path), "this host", need.hint)
    if need.target is not None and need.path.resolve().name != need.target:
        what = f"{need.path} → {need.target}"
        found = f"this host, where it is {need.path.resolve().name}"
        raise UnsupportedError(what, found, need.hint)
    return str(need.path)
