"""What can be read of an image, once its chain and its map are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Any

from pyvirt._native.content import Content
from pyvirt.image.budget import Budget
from pyvirt.image.compare import Comparison, Progress, compare, content_hash
from pyvirt.image.content import PIECE, File, flat, packed, pieces, stored_ranges
from pyvirt.image.extents import Extents
from pyvirt.image.layer import Layer


class Readable:
    """Guest bytes of the whole chain; the base of `Image`, which knows the chain."""

    name: str
    budget: Budget
    passphrase: str | bytes | None
    _open: ExitStack

    @property
    def size(self) -> int:
        """Bytes that the guest sees."""
        raise NotImplementedError

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The chain, top first."""
        raise NotImplementedError

    def extents(
        self,
        start: int = 0,
        stop: int | None = None,
        *,
        chain: bool = False,
        holes: bool | None = None,
    ) -> Extents:
        """What is where."""
        raise NotImplementedError

    @cached_property
    def _content(self) -> Content:
        # A hole reads as zeros; what lies behind the end of a file is no hole, but lost.
        extents = self.extents(chain=True, holes=False)
        content = flat(self.layers, extents, self.budget, self.passphrase)
        self._open.callback(content.close)
        return content

    def read(self, offset: int, size: int) -> bytes:
        """What the guest reads: the whole chain, unpacked and decrypted.

        Fewer bytes only at the end of the disk. Any number of threads may read at once.
        """
        return self._content.read(offset, size)

    def readinto(self, buffer: Any, offset: int) -> int:
        """Fill `buffer` from byte `offset` on; the bytes read, fewer only at the end."""
        if offset < 0:
            raise ValueError(f"offset must not be negative, got {offset}")
        return self._content.readinto(buffer, offset)

    def readv(self, offsets: Iterable[int], size: int, buffer: Any = None) -> Any:
        """`size` bytes from each of `offsets`, one behind the other, in one call.

        Fastest with offsets that are packed (``array("Q")``, numpy) and with a `buffer` of the
        caller's, which is returned; without one it is a new bytearray.
        """
        places = packed(offsets)
        if buffer is None:
            buffer = bytearray(len(places) * size)
        self._content.readv(places, size, buffer)
        return buffer

    def open(self) -> File:
        """The content as a file with a position of its own; wrap it in io.BufferedReader for
        many small reads."""
        return File(self)

    def data(self, piece: int = PIECE) -> Iterator[tuple[int, bytes]]:
        """Offset and bytes of all that does not read as zeros for certain, in order, in pieces."""
        content = self._content
        for offset, size in pieces(stored_ranges(self.extents(chain=True)), piece):
            yield offset, content.read(offset, size)

    def compare(
        self, other: Readable, *, all: bool = False, progress: Progress | None = None
    ) -> Comparison:
        """How the content differs from that of `other`, whatever the formats.

        Ends at the first difference unless `all` are asked for. `progress` is called with the
        bytes done and to do; what it raises ends the comparison.
        """
        return compare(self, other, all=all, progress=progress)

    def hash(
        self,
        algorithm: str = "sha256",
        *,
        block: int | None = None,
        progress: Progress | None = None,
    ) -> str:
        """The hash of all that the guest reads, in hexadecimal; `algorithm` as hashlib names it.

        With `block` it is the hash of the hashes of blocks of so many bytes, the last one as
        short as it is: disks that are mostly zeros then take hardly any time.
        """
        return content_hash(self, algorithm, block, progress)
