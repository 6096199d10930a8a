"""What is written beside a file and takes its place when it is whole.

Until then the old file stays, or none; a draft that is not finished is removed, even when
this process is killed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from pyvirt.running.children.keeper import forget, keep
from pyvirt.running.tools.claim import Claim

#: Longest part of the target's name in a draft's, in bytes: names end at 255.
_NAME = 200

_FICLONE = 0x40049409


class Draft:
    """An image in the making, in the directory of `target`; `path` is where to write it.

    With `scattered`, the image is several files named after the first: they are made in a
    directory of their own. Raises `FileExistsError` when `target` is there and not to be
    replaced, and `HeldError` when another process uses it.
    """

    def __init__(self, target: Path, *, replace: bool, scattered: bool = False) -> None:
        self.target = Path(os.path.realpath(target))  # A link stays, and leads to the new file.
        if not self.target.parent.is_dir():
            raise FileNotFoundError(2, "No such directory", str(self.target.parent))
        self._replace, self._scattered = replace, scattered
        self._stack = ExitStack()
        if not replace and os.path.lexists(target):
            raise FileExistsError(17, "File exists; overwrite=True replaces it", str(target))
        self._claim: Claim | None = None
        if replace and self.target.is_file():
            self._claim = self._stack.enter_context(Claim(self.target))
        self.place = self.target.with_name(beside(self.target))
        self.path = self.place / self.target.name if scattered else self.place
        keep(self.place)
        self._stack.callback(self._remove)

    def make_room(self) -> None:
        """Make what the tool finds there when it begins."""
        if self._scattered:
            self.place.mkdir(mode=0o700)
        else:
            self.place.touch()

    def finish(self) -> None:
        """Have it take its place, for good even if the host loses power."""
        if self._claim is not None:
            self._claim.alone()
        if self._scattered:
            for path in sorted(self.place.iterdir(), key=lambda path: path == self.path):
                self._put(path, self.target.with_name(path.name))
        else:
            self._put(self.place, self.target)
        sync_directory(self.target.parent)

    def _put(self, path: Path, target: Path) -> None:
        sync(path)
        if self._replace:
            with suppress(FileNotFoundError):
                old = target.stat()
                _inherit(path, old)
                # What was left to do on the old file is void.
                unfinished(target, old.st_ino).unlink(missing_ok=True)
            os.replace(path, target)
            return
        try:
            os.link(path, target)  # Unlike a rename, never in place of what came meanwhile.
        except FileExistsError:
            raise
        except OSError:  # A file system without links.
            if target.exists():
                raise FileExistsError(17, "File exists", str(target)) from None
            os.replace(path, target)
        else:
            path.unlink()

    def close(self) -> None:
        """Remove what was not finished."""
        self._stack.close()

    def _remove(self) -> None:
        if self._scattered:
            shutil.rmtree(self.place, ignore_errors=True)
        else:
            self.place.unlink(missing_ok=True)
        forget(self.place)

    def __enter__(self) -> Self:
        self.make_room()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def beside(target: Path) -> str:
    """A name for something in the making of `target`, which nobody else has."""
    kept = os.fsencode(target.name)[:_NAME].decode("utf-8", "ignore")
    return f".{kept}.{secrets.token_hex(4)}.part"


def unfinished(target: Path, inode: int) -> Path:
    """Where the journal of a change lies that must be finished, of this very file."""
    return target.with_name(f".{target.name}.{inode:x}.redo")


def copy(source: Path, target: Path) -> None:
    """The bytes of `source` in `target`: shared where the file system can, else its data."""
    with open(source, "rb") as old, open(target, "wb") as new:
        with suppress(OSError):
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            return
        new.truncate(os.fstat(old.fileno()).st_size)
        end = 0
        while (piece := _data(old.fileno(), end)) is not None:
            start, end = piece
            _copy_range(old.fileno(), new.fileno(), start, end)


def _data(fd: int, place: int) -> tuple[int, int] | None:
    """The first part that is no hole from `place` on."""
    try:
        start = os.lseek(fd, place, os.SEEK_DATA)
    except OSError:
        return None
    return start, os.lseek(fd, start, os.SEEK_HOLE)


def _copy_range(old: int, new: int, start: int, end: int) -> None:
    while start < end:
        done = os.copy_file_range(old, new, min(end - start, 1 << 26), start, start)
        if not done:
            return
        start += done


def _inherit(path: Path, status: os.stat_result) -> None:
    """The mode and the owner of the file that is replaced, as far as we may."""
    path.chmod(stat.S_IMODE(status.st_mode))
    with suppress(PermissionError):
        os.chown(path, status.st_uid, status.st_gid)


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    with suppress(OSError):  # Not every file system lets one.
        sync(path)
