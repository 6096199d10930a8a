"""Holes in files: room given back without moving what follows (fallocate(2))."""

from __future__ import annotations

import os

_PUNCH_HOLE, _KEEP_SIZE = 2, 1


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give back the room of `length` bytes from `offset` on; they read as zeros.

    Raises `OSError` where the file system cannot.
    """
    import ctypes  # it opens the C library when it is imported

    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
