"""Looks into a root file system before a container starts in it."""

from __future__ import annotations

from pathlib import Path

from pyvirt.errors import RootFSError
from pyvirt.running.rootfs.beneath import exists
from pyvirt.running.rootfs.merged import merged
from pyvirt.running.rootfs.prepare import Prepared


def require(prepared: Prepared, program: str) -> None:
    """Raise `RootFSError` when there is no *program* (an absolute path) in what is prepared.

    What lies in an image is seen only by who mounts it: there the first process will tell.
    """
    kind, _, paths = prepared.source.partition(":")
    if kind == "loop":
        return
    *lowers, upper = map(Path, paths.split(":"))
    # A mount costs 8 ms; what one layer has, nearly always nothing above it hides.
    if any(_has([layer], program) for layer in (*lowers, upper)):
        return
    if _has([upper, *lowers], program, userxattr="userxattr" in prepared.options):
        return
    empty = not any(any(layer.iterdir()) for layer in (*lowers, upper))
    hint = "it is empty" if empty else "name a command, or another init"
    raise RootFSError(lowers[0] if lowers else upper, f"has no {program}; {hint}")


def _has(layers: list[Path], program: str, *, userxattr: bool = False) -> bool:
    with merged(layers, userxattr=userxattr) as root:
        return exists(root, program)
