"""Small image files for the tests of disks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

MIB = 1 << 20


def raw(path: Path, size: int = 4 * MIB) -> Path:
    """A sparse raw image."""
    path.touch()
    os.truncate(path, size)
    return path


def qcow2(path: Path, *words: str, size: int = 4 * MIB) -> Path:
    """An empty qcow2 image; `words` go to qemu-img."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words, path, str(size)], check=True)
    return path
