"""Directories in the making: whole, or gone."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyvirt.errors import DiskFullError, PyvirtError
from pyvirt.running.children.keeper import forget, keep
from pyvirt.running.rootfs.watch import Watch

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def made(path: Path, watch: Watch) -> Iterator[Path]:
    """A new directory *path*; what fails inside, or dies with this process, takes it along.

    A full disk is told as `DiskFullError`. Raises `FileExistsError` when *path* is there.
    """
    watch.go_on()
    path = Path(os.path.abspath(path))
    path.mkdir(mode=0o755)
    keep(path)
    try:
        path.chmod(0o755)
        yield path
    except BaseException as error:
        remove(path)
        if isinstance(error, OSError) and error.errno in FULL:
            if isinstance(error, PyvirtError):
                raise
            raise DiskFullError(watch.what, path.parent, error.errno) from None
        raise
    finally:
        forget(path)


def remove(path: Path) -> None:
    """Remove the tree at *path*, if there is one; links in it are removed, not followed."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
