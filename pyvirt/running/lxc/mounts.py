"""Mounts that are made outside and fastened inside: open_tree(2), fsopen(2), mount_setattr(2)."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from pyvirt.container import Bind, Tmpfs
from pyvirt.container.mount import Filesystem
from pyvirt.errors import SpecError

# The same on every architecture: asm-generic/unistd.h.
_OPEN_TREE, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 430, 431, 432, 442

_AT_FDCWD = -100
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_CLONE, _CLOEXEC = 1, os.O_CLOEXEC
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_SET_STRING, _CREATE = 1, 6
_RDONLY = 1


def opened(part: Filesystem) -> int:
    """A descriptor of the mount, which is nowhere yet."""
    if isinstance(part, Bind):
        return _bound(part)
    if isinstance(part, Tmpfs):
        return _tmpfs(part)
    raise SpecError("part", "must be Bind or Tmpfs to be mounted while it runs", part)


def _bound(part: Bind) -> int:
    ffi, _ = _libc()
    deep = _AT_RECURSIVE if part.recursive else 0
    source = ffi.new("char[]", os.fsencode(part.source))
    fd = _call(_OPEN_TREE, [("int", _AT_FDCWD), source, ("int", _CLONE | _CLOEXEC | deep)],
               part.source)  # fmt: skip
    if part.readonly:
        empty = ffi.new("char[]", b"")
        attributes = ffi.new("uint64_t[4]", [_RDONLY, 0, 0, 0])
        try:
            _call(_MOUNT_SETATTR, [("int", fd), empty, ("int", _AT_EMPTY_PATH | deep), attributes,
                                   ("size_t", 32)], part.source)  # fmt: skip
        except BaseException:
            os.close(fd)
            raise
    return fd


def _tmpfs(part: Tmpfs) -> int:
    ffi, _ = _libc()
    kind = ffi.new("char[]", b"tmpfs")
    context = _call(_FSOPEN, [kind, ("int", _FSOPEN_CLOEXEC)], "tmpfs")
    try:
        options = {"mode": f"{part.mode:o}"} | ({"size": str(part.size)} if part.size else {})
        for key, value in options.items():
            texts = [ffi.new("char[]", text.encode()) for text in (key, value)]
            _call(_FSCONFIG, [("int", context), ("int", _SET_STRING), *texts, ("int", 0)], key)
        nothing = ffi.NULL
        _call(_FSCONFIG, [("int", context), ("int", _CREATE), nothing, nothing, ("int", 0)],
              "tmpfs")  # fmt: skip
        return _call(_FSMOUNT, [("int", context), ("int", _FSMOUNT_CLOEXEC), ("int", 0)], "tmpfs")
    finally:
        os.close(context)


def _call(number: int, arguments: list[Any], about: str) -> int:
    """The result of a system call; OSError about `about`."""
    ffi, libc = _libc()
    given = [ffi.cast(*each) if isinstance(each, tuple) else each for each in arguments]
    result = int(libc.syscall(ffi.cast("long", number), *given))
    if result < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno), about)
    return result


@cache
def _libc() -> tuple[Any, Any]:
    from cffi import FFI

    ffi = FFI()
    ffi.cdef("long syscall(long number, ...);")
    return ffi, ffi.dlopen(None)
