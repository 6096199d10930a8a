"""Looks into a root file system before a container starts in it."""

from __future__ import annotations

import os
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
    with merged([upper, *lowers], userxattr="userxattr" in prepared.options) as root:
        if exists(root, program):
            return
        entries = os.listdir(root)
    hint = "it is empty" if not entries else "name a command, or another init"
    raise RootFSError(upper, f"has no {program}; {hint}")
