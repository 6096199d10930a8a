"""Opening below a directory, so that nothing in the path leads out of it: openat2(2)."""

from __future__ import annotations

import errno
import os
import struct

from pyvirt.errors import UnsupportedError

#: The number of openat2 is the same on every architecture (but alpha).
_OPENAT2 = 437
_NO_MAGICLINKS, _BENEATH = 0x02, 0x08
#: The kernel was renaming things while it looked; to be tried again.
_TRIES = 16


def open_beneath(directory: str, path: str) -> int | None:
    """An ``O_PATH`` descriptor of `path` below `directory`; None if it leads out of there."""
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _openat2(root, os.fsencode(path))
    finally:
        os.close(root)


def _openat2(root: int, path: bytes) -> int | None:
    import ctypes  # Opens the C library when it is imported.

    call = ctypes.CDLL(None, use_errno=True).syscall
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _NO_MAGICLINKS | _BENEATH)
    for _ in range(_TRIES):
        fd = int(call(ctypes.c_long(_OPENAT2), root, path, how, ctypes.c_size_t(len(how))))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code != errno.EAGAIN:
            break
    if code in (errno.EXDEV, errno.ELOOP):
        return None
    if code in (errno.ENOSYS, errno.EPERM):
        raise UnsupportedError("openat2", "this kernel or sandbox", "trust a list of files")
    raise OSError(code, os.strerror(code), os.fsdecode(path))
