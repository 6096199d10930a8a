"""Moving files and trees through the streams of an applet; on a thread, so it may wait."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar

from pyvirt.errors import ClosedError, GuestError, ProtocolError
from pyvirt.guest.carrier import Progress
from pyvirt.guest.process import CHUNK, GuestProcess
from pyvirt.guest.protocol import Fields, Tag
from pyvirt.guest.session import failure
from pyvirt.running.agents import trees

S = TypeVar("S")
T = TypeVar("T")


def pieces(source: BinaryIO | bytes) -> tuple[Iterator[bytes], int | None]:
    """`source` in pieces, and how many bytes it has, where that is known."""
    if isinstance(source, bytes):
        return (source[at : at + CHUNK] for at in range(0, len(source), CHUNK)), len(source)
    return iter(lambda: source.read(CHUNK), b""), _size(source)


def _size(file: BinaryIO) -> int | None:
    """What is left of a regular file, or of a buffer in memory."""
    try:
        status = os.fstat(file.fileno())
        return status.st_size - file.tell() if stat.S_ISREG(status.st_mode) else None
    except (OSError, AttributeError):
        return len(file.getbuffer()) - file.tell() if isinstance(file, io.BytesIO) else None


class Count:
    """Counts bytes and tells the user of them. After `stop` it raises instead."""

    def __init__(self, progress: Progress | None, total: int | None) -> None:
        self.done, self.total, self._progress = 0, total, progress
        self._stopped = False

    def stop(self) -> None:
        """Nobody wants the rest."""
        self._stopped = True

    def add(self, size: int) -> None:
        """`size` bytes were moved."""
        if self._stopped:
            raise CancelledError
        self.done += size
        if self._progress is not None:
            self._progress(self.done, self.total)


def drive(flow: Generator[S, Any, T], begin: Callable[[S], Future[Any]]) -> T:
    """Run `flow` on this thread; `begin` turns each of its steps into a future."""
    try:
        step = next(flow)
        while True:
            try:
                value = begin(step).result()
            except (Exception, CancelledError) as error:
                step = flow.throw(error)
            else:
                step = flow.send(value)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def send(
    process: GuestProcess, parts: Iterable[bytes], total: int | None, progress: Progress | None
) -> int:
    """Write `parts` to the applet and wait until it did its work. The bytes sent."""
    count = Count(progress, total)
    # Nobody reads any more: the applet's own words, further down, say why.
    with suppress(ClosedError):
        for part in parts:
            process.stdin.write(part)
            count.add(len(part))
    process.stdin.close()
    _finish(process)
    return count.done


def receive(process: GuestProcess, sink: BinaryIO, progress: Progress | None) -> int:
    """Read what the applet writes into `sink`. The bytes read."""
    notes = _first_note(process)
    count = Count(progress, Fields(notes).number(Tag.SIZE))
    for part in process.stdout:
        sink.write(part)
        count.add(len(part))
    _finish(process, notes)
    return count.done


def send_tree(process: GuestProcess, source: str, progress: Progress | None) -> int:
    """Send the directory `source` as an archive. The bytes sent."""
    return send(process, trees.pack(source), None, progress)


def receive_tree(process: GuestProcess, target: str, progress: Progress | None) -> int:
    """Unpack the archive that the applet writes into `target`. The bytes read."""
    count = Count(progress, None)
    ended = False

    def read(size: int) -> bytes:
        nonlocal ended
        data = process.stdout.read(size)
        ended = len(data) < size
        count.add(len(data))
        return data

    try:
        trees.unpack(read, target)
    except ProtocolError:
        if ended:  # the applet's own words say why
            _finish(process)
        raise
    _finish(process)
    return count.done


def _first_note(process: GuestProcess) -> bytes:
    """The size, or the reason why there is no content: the applet says one of them first."""
    return process.stderr.read(_NOTE)


_NOTE = 12  # bytes in a field with a number
_NOTES_MOST = 64 << 10


def _finish(process: GuestProcess, notes: bytes = b"") -> None:
    """Wait for the end of the applet; `GuestError` with its own words when it failed."""
    while len(notes) < _NOTES_MOST and (part := process.stderr.read(_NOTES_MOST - len(notes))):
        notes += part
    exit = process.wait()
    if exit.exit_code == 1:
        raise failure(Fields(notes))
    if not exit.ok:
        raise GuestError("a transfer", f"it ended with {exit}")
