"""Locks on an image as QEMU takes them, so that we and a running QEMU keep out of each other.

QEMU locks single bytes of the file, shared, and looks whether others hold the byte that
contradicts: 100 and up say "I do this", 200 and up "I cannot bear that others do this"
(``RAW_LOCK_PERM_BASE`` and ``RAW_LOCK_SHARED_BASE`` in block/file-posix.c).
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

from pyvirt.errors import HeldError, PyvirtError
from pyvirt.image.holders import writers
from pyvirt.image.source import FileSource

_DOES, _BARS = 100, 200
_READ, _WRITE, _RESIZE = 0, 1, 3
_ALL = range(4)
_FLOCK = "hhqqi4x"


class Claim:
    """An image that no other process may write, nor may have opened in a way that bars us.

    Raises `HeldError` when one has. Readers are welcome until `alone`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._take([_DOES + _READ, _BARS + _WRITE, _BARS + _RESIZE])
            self._check([_DOES + _WRITE, _DOES + _RESIZE])
            self._check([_BARS + each for each in _ALL])
        except BaseException:
            self.close()
            raise

    def alone(self) -> None:
        """From here on nobody else may read it either; `HeldError` when somebody does."""
        self._take([_DOES + _WRITE, _DOES + _RESIZE, _BARS + _READ])
        self._check([_DOES + each for each in _ALL])
        self._check([_BARS + each for each in _ALL])

    def together(self) -> None:
        """Others may read it again."""
        for place in (_DOES + _WRITE, _DOES + _RESIZE, _BARS + _READ):
            with suppress(OSError):
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, place))

    def _take(self, places: Iterable[int]) -> None:
        for place in places:
            try:
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_RDLCK, place))
            except BlockingIOError:
                raise held_error(str(self._path)) from None
            except OSError:
                return  # A file system without locks: QEMU does without them there, too.

    def _check(self, places: Iterable[int]) -> None:
        for place in places:
            try:
                asked = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, place))
            except OSError:
                return
            if struct.unpack(_FLOCK, asked)[0] != fcntl.F_UNLCK:
                raise held_error(str(self._path))

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def held_error(path: str) -> HeldError:
    """That another process holds `path`, with its name where that can be seen."""
    with suppress(OSError, PyvirtError), FileSource(path) as source:
        found = writers(source)
        return HeldError(path, "" if found is None else str(found))
    return HeldError(path)


def _lock(kind: int, place: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0)
