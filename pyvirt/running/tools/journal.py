"""Change an image in place, whole or not at all.

While ``qemu-img`` works, everything it writes goes into a journal: a qcow2 image beside the
file, over the file's bytes, which it only reads. Once it has succeeded, the journal is
complete, is renamed to ``.NAME.INODE.redo`` (the point of no return), and what is in it is
copied into the file. Doing that twice does no harm: whoever finds a journal of that name,
because the host lost power or this process was killed, finishes the work first.

So a change costs what it changes, however large the image is.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from attrs import frozen

from pyvirt.disk.format import Format, Raw
from pyvirt.disk.local import File, HostDevice
from pyvirt.disk.node import BlockNode
from pyvirt.qemu_img import calls
from pyvirt.qemu_img.options import Qcow2Options
from pyvirt.running.children.keeper import forget, keep
from pyvirt.running.tools.claim import Claim
from pyvirt.running.tools.draft import beside, sync, sync_directory, unfinished
from pyvirt.running.tools.writing import Work

_PIECE = 1 << 20
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_SECTOR = 512


class Journal:
    """What will change in the file `target`; `node` is the file with its changes.

    `room` is how many bytes beyond the file's end an image in it may use: qcow2 as a
    journal does not grow by being written to. Without it, the file's end is exact.
    """

    def __init__(self, work: Work, target: Path, claim: Claim, room: int) -> None:
        self._work, self._claim, self.target = work, claim, target
        self._stack = ExitStack()
        self._before = _length(target)
        self._size = _rounded(self._before + room)
        self.path = target.with_name(beside(target))
        keep(self.path)
        self._stack.callback(self._remove)
        work.run(calls.create(str(self.path), self._size, Qcow2Options()))

    @property
    def node(self) -> BlockNode:
        """To be written by ``qemu-img`` in place of the file."""
        return Format("qcow2", File(self.path), backing=Raw(bytes_of(self.target)))

    def apply(self) -> None:
        """Put the changes into the file; all of them, come what may."""
        size = self._settle()
        redo = redo_of(self.target)
        sync(self.path)
        self._claim.alone()
        with self._work.unstoppable():
            os.replace(self.path, redo)
            sync_directory(redo.parent)
            _redo(self._work, self.target, redo, size)

    def _settle(self) -> int:
        """The file's size to be, which the journal then knows as its own."""
        own, name = Format("qcow2", File(self.path), backing=None), str(self.path)
        size: int = json.loads(self._work.run(calls.info(own, name)))["virtual-size"]
        changes = _changes(self._work, self.path)
        if size == self._size and size != _rounded(self._before):
            size = max([_rounded(self._before), *(change.end for change in changes)])
            self._work.run(calls.resize(own, name, size, shrink=True, preallocation=None))
        _reserve(self.target, changes, size)
        return size

    def close(self) -> None:
        self._stack.close()

    def _remove(self) -> None:
        self.path.unlink(missing_ok=True)
        forget(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def recover(work: Work, target: Path, claim: Claim) -> bool:
    """Finish the change that a journal beside `target` tells of; whether there was one."""
    redo = redo_of(target)
    if not redo.exists():
        return False
    own = Format("qcow2", File(redo), backing=None)
    size: int = json.loads(work.run(calls.info(own, str(redo))))["virtual-size"]
    claim.alone()
    with work.unstoppable():
        _redo(work, target, redo, size)
    claim.together()
    return True


def redo_of(target: Path) -> Path:
    """Where the journal of a change that must be finished lies: of this very file."""
    return unfinished(target, target.stat().st_ino)


def bytes_of(path: Path) -> BlockNode:
    """The node of a file or a device of this host."""
    return HostDevice(path) if path.is_block_device() else File(path)


@frozen
class _Change:
    """Bytes of the file that come from `offset` in the journal, or are zeros."""

    start: int
    end: int
    offset: int | None


def _changes(work: Work, journal: Path) -> list[_Change]:
    own = Format("qcow2", File(journal), backing=None)
    mapped = json.loads(work.run(calls.flat_map(own, str(journal))))
    return [
        _Change(one["start"], one["start"] + one["length"],
                None if one["zero"] else one["offset"])
        for one in mapped
        if one.get("present", one["data"] or one["zero"])
    ]  # fmt: skip


def _redo(work: Work, target: Path, journal: Path, size: int) -> None:
    changes = _changes(work, journal)
    with open(journal, "rb") as source, open(target, "r+b") as file:
        _resize(file.fileno(), size)
        for change in changes:
            if change.offset is None:
                _zero(file.fileno(), change.start, min(change.end, size))
            else:
                _copy(source.fileno(), file.fileno(), change, size)
        os.fsync(file.fileno())
    journal.unlink()
    sync_directory(journal.parent)


def _resize(fd: int, size: int) -> None:
    """Only where it changed: a journal counts whole sectors."""
    if size != _rounded(os.lseek(fd, 0, os.SEEK_END)):
        os.ftruncate(fd, size)


def _copy(source: int, target: int, change: _Change, size: int) -> None:
    assert change.offset is not None
    start = change.start
    while start < min(change.end, size):
        place = change.offset + start - change.start
        data = os.pread(source, min(_PIECE, min(change.end, size) - start), place)
        if not data:  # The file of a qcow2 image may end within its last cluster.
            _zero(target, start, min(change.end, size))
            return
        done = 0
        while done < len(data):
            done += os.pwrite(target, data[done:], start + done)
        start += len(data)


def _zero(fd: int, start: int, end: int) -> None:
    """Zeros from `start` to `end`, as a hole where there can be one."""
    if start < end and not _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, start, end - start):
        for place in range(start, end, _PIECE):
            os.pwrite(fd, bytes(min(_PIECE, end - place)), place)


def _reserve(target: Path, changes: list[_Change], size: int) -> None:
    """Have room for what will be written, while there is a way back: a full disk is told here."""
    if target.is_file():
        with open(target, "r+b") as file:
            for change in changes:
                end = min(change.end, size)
                if change.offset is not None and change.start < end:
                    length = end - change.start
                    _fallocate(file.fileno(), _KEEP_SIZE, change.start, length, full=True)


def _fallocate(fd: int, mode: int, start: int, length: int, *, full: bool = False) -> bool:
    """Whether the file system could; `OSError` when `full` and the disk is full."""
    import ctypes  # it opens the C library when it is imported

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate64(fd, mode, ctypes.c_int64(start), ctypes.c_int64(length)) == 0:
        return True
    number = ctypes.get_errno()
    if full and number in (27, 28, 122):  # EFBIG, ENOSPC, EDQUOT
        raise OSError(number, os.strerror(number))
    return False


def _length(path: Path) -> int:
    with open(path, "rb") as file:
        return file.seek(0, os.SEEK_END)


def _rounded(size: int) -> int:
    return -(-size // _SECTOR) * _SECTOR
