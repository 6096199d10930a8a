"""The layers of an overlay as one tree, to be read: a mount that has no place.

fsopen(2), fsconfig(2) and fsmount(2) give a descriptor; closing it ends the mount, and so does
the end of this process, however it ends.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pyvirt.errors import UnsupportedError

# The same on every architecture (but alpha): linux/include/uapi/asm-generic/unistd.h.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC, _SET_FLAG, _SET_STRING, _CREATE = 1, 0, 1, 6
_RDONLY = 1


@contextmanager
def merged(layers: Sequence[Path], *, userxattr: bool) -> Iterator[int]:
    """A descriptor of the tree that *layers* make, the topmost first."""
    if len(layers) == 1:
        fd = os.open(layers[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        fd = _mounted(layers, userxattr)
    try:
        yield fd
    finally:
        os.close(fd)


def _mounted(layers: Sequence[Path], userxattr: bool) -> int:
    ffi, _ = _libc()
    with ExitStack() as stack:
        context = _call(_FSOPEN, ffi.from_buffer(b"overlay\0"), ("int", _CLOEXEC))
        stack.callback(os.close, context)
        _lowers(context, [_short(layer, stack) for layer in layers])
        if userxattr:
            _set(context, _SET_FLAG, b"userxattr", None)
        _set(context, _CREATE, None, None)
        mount = _call(_FSMOUNT, ("int", context), ("int", _CLOEXEC), ("int", _RDONLY))
    try:  # the first descriptor cannot be listed
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)


def _short(layer: Path, stack: ExitStack) -> bytes:
    """A name for a directory: fsconfig takes 255 bytes, and ':' would need care."""
    fd = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return f"/proc/self/fd/{fd}".encode()


def _lowers(context: int, names: list[bytes]) -> None:
    """One by one, as Linux 6.7 and later take them, or all at once."""
    try:
        _set(context, _SET_STRING, b"lowerdir+", names[0])
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _set(context, _SET_STRING, b"lowerdir", b":".join(names))
        return
    for name in names[1:]:
        _set(context, _SET_STRING, b"lowerdir+", name)


def _set(context: int, command: int, key: bytes | None, value: bytes | None) -> None:
    ffi, _ = _libc()
    words = [ffi.NULL if word is None else ffi.from_buffer(word + b"\0") for word in (key, value)]
    _call(_FSCONFIG, ("int", context), ("int", command), *words, ("int", 0))


def _call(number: int, *arguments: Any) -> int:
    ffi, libc = _libc()
    given = [ffi.cast(*one) if isinstance(one, tuple) else one for one in arguments]
    result = int(libc.syscall(number, *given))
    if result >= 0:
        return result
    if ffi.errno == errno.ENOSYS:
        raise UnsupportedError("fsopen", "this kernel", "Linux 5.2 and later have it")
    raise OSError(ffi.errno, os.strerror(ffi.errno), "overlay")


@cache
def _libc() -> tuple[Any, Any]:
    from cffi import FFI  # opened only where an overlay is read

    ffi = FFI()
    ffi.cdef("long syscall(long number, ...);")
    return ffi, ffi.dlopen(None)
