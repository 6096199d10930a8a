"""Who holds an image for writing: seen by its locks, and no lock is taken.

QEMU locks single bytes of each file it opens: 100 and up say "I do this", 200 and up "nobody
else may", one for each permission (`RAW_LOCK_PERM_BASE` and `RAW_LOCK_SHARED_BASE` in
block/file-posix.c). A QEMU with ``locking=off``, on another host, or on a file system without
locks is not seen.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Iterator

from attrs import frozen

from pyvirt.image.source import FileSource, Source

_DOES, _BARS = 100, 200
_PERMISSIONS = ("consistent-read", "write", "write-unchanged", "resize")
_WRITING = (_DOES + 1, _DOES + 3)
#: struct flock: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x")
#: A line of fdinfo: "lock: 1: OFDLCK ADVISORY READ -1 08:01:42 100 101".
_HELD = re.compile(r"^lock:.*(?:OFDLCK|POSIX).* (\d+) (\d+|EOF)$", re.MULTILINE)


@frozen
class Holder:
    """A process that holds an image; `pid` is None where /proc does not tell it."""

    pid: int | None
    #: The name of the program.
    program: str
    #: The name of the guest (``-name``), if it is a QEMU that was given one.
    guest: str | None = None

    def __str__(self) -> str:
        guest = f", guest {self.guest}" if self.guest else ""
        return self.program if self.pid is None else f"{self.program} (pid {self.pid}{guest})"


@frozen
class Held:
    """What others do with an image that one of them may write, in QEMU's words."""

    holders: tuple[Holder, ...]
    #: "write", "resize", ...: what somebody does, and what somebody bars others from.
    does: tuple[str, ...]
    bars: tuple[str, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.holders))


def held(fd: int) -> Held | None:
    """Who has the file `fd` open for writing; None if nobody is seen to."""
    # One question settles it for nearly all files: every image that is opened asks it.
    if not _locked(fd, _WRITING[0], 3) or not any(_locked(fd, place) for place in _WRITING):
        return None
    return Held(_holders(fd), _names(fd, _DOES), _names(fd, _BARS))


def writers(source: Source) -> Held | None:
    """Who may be writing `source` meanwhile, if it is a file."""
    return held(source.fileno()) if isinstance(source, FileSource) else None


def _names(fd: int, base: int) -> tuple[str, ...]:
    names = enumerate(_PERMISSIONS, base)
    return tuple(name for place, name in names if _locked(fd, place))


def _locked(fd: int, place: int, count: int = 1) -> bool:
    """Whether somebody else has a lock on these bytes: what a writer's lock would run into."""
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, count, 0)
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted)
    except OSError:
        return False  # A file system without locks; QEMU does without them there, too.
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def _holders(fd: int) -> tuple[Holder, ...]:
    status = os.fstat(fd)
    pids = {pid for pid in _pids() if _holds(pid, (status.st_dev, status.st_ino))}
    return tuple(map(_holder, sorted(pids))) or (Holder(None, "another process"),)


def _pids() -> Iterator[int]:
    try:
        yield from (int(name) for name in os.listdir("/proc") if name.isdecimal())
    except OSError:
        return


def _holds(pid: int, identity: tuple[int, int]) -> bool:
    """Whether the process has a lock for writing on that file; False where we may not look."""
    try:
        return any(_fd_holds(pid, fd, identity) for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def _fd_holds(pid: int, fd: str, identity: tuple[int, int]) -> bool:
    try:
        status = os.stat(f"/proc/{pid}/fd/{fd}")
        if (status.st_dev, status.st_ino) != identity:
            return False
        with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii", errors="replace") as file:
            ranges = _HELD.findall(file.read(1 << 16))
    except OSError:
        return False
    return any(
        int(first) <= place and (last == "EOF" or place <= int(last))
        for first, last in ranges
        for place in _WRITING
    )


def _holder(pid: int) -> Holder:
    words = _read(pid, "cmdline").split("\0")
    return Holder(pid, _read(pid, "comm").strip() or "a process", _guest(words))


def _guest(words: list[str]) -> str | None:
    if "-name" not in words[:-1]:
        return None
    first = words[words.index("-name") + 1].split(",")[0]
    return first.removeprefix("guest=") or None


def _read(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", errors="replace") as file:
            return file.read(1 << 18)
    except OSError:
        return ""
