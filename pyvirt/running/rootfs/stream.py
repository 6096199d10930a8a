"""Bytes on their way from a file into a tree: counted, checked against digests, handed out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator

from pyvirt.errors import RootFSError
from pyvirt.running.rootfs.watch import Watch

_PIECE = 256 << 10


def window(fd: int, start: int, size: int, watch: Watch, what: str) -> Iterator[bytes]:
    """The bytes of a file from `start` on, as many as there are up to `size`."""
    done = 0
    while done < size and (piece := os.pread(fd, min(_PIECE, size - done), start + done)):
        done += len(piece)
        watch.tell(what, done / size)
        yield piece


def verified(
    pieces: Iterator[bytes], digest: str, size: int | None, fault: Callable[[str], RootFSError]
) -> Iterator[bytes]:
    """*pieces*, whose end is an error unless they are what `digest` ("sha256:…") says."""
    algorithm, _, expected = digest.partition(":")
    state, length = hashlib.new(algorithm), 0
    for piece in pieces:
        state.update(piece)
        length += len(piece)
        yield piece
    if size is not None and length < size:
        raise fault(f"is cut short: it has {length} of {size} bytes")
    if state.hexdigest() != expected:
        raise fault(f"is not what its digest says: it has {algorithm}:{state.hexdigest()}")


class Reader:
    """`read(n)` gives exactly `n` bytes of *pieces*, fewer only at their end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        if len(self._rest) >= size:
            return self._take(size)
        found = bytearray(self._rest)
        while len(found) < size and (piece := next(self._pieces, None)) is not None:
            found += piece
        self._rest = memoryview(bytes(found))
        return self._take(min(size, len(found)))

    def drain(self) -> None:
        """Read to the end, so that what is checked there is checked."""
        self._rest = memoryview(b"")
        for _ in self._pieces:
            pass

    def _take(self, size: int) -> bytes:
        got, self._rest = self._rest[:size], self._rest[size:]
        return bytes(got)
