"""Files that are described, written below a directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from pyvirt.guest import cpio


def plant(entries: Iterable[cpio.Entry], root: Path) -> None:
    """Write *entries*, directories before what is in them, below the empty *root*."""
    for entry in entries:
        path, kind = root / entry.path, stat.S_IFMT(entry.mode)
        if kind == stat.S_IFDIR:
            path.mkdir()
        elif kind == stat.S_IFLNK:
            path.symlink_to(os.fsdecode(entry.data))
            continue
        else:
            path.write_bytes(entry.data)
        path.chmod(stat.S_IMODE(entry.mode))
