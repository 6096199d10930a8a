"""Extents of an image as packed columns: what is where, without an object for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntFlag
from importlib import import_module
from itertools import islice
from typing import Any, overload

from attrs import evolve, frozen

from pyvirt._native.columns import Columns


class Flag(IntFlag):
    """What is known of an extent."""

    #: Bytes are stored for it; QEMU calls it data.
    ALLOCATED = 1
    #: It reads as zeros, whatever is stored.
    ZERO = 2
    #: One block: `stored` bytes at `host` unpack to it.
    COMPRESSED = 4
    #: This layer decides; without it the layer below does, and behind the last are zeros.
    PRESENT = 8
    #: `host` is a place in `file` where as many bytes belong to this extent.
    OFFSET = 16
    #: What is stored must be decrypted.
    ENCRYPTED = 32


@frozen
class Extent:
    """`length` bytes of the guest from `start` on; all sizes and offsets in bytes."""

    start: int
    length: int
    #: Where it is stored in source `file` of layer `depth`; 0 where nothing is.
    host: int
    flags: Flag
    #: Which image of the chain decides: 0 is the top.
    depth: int = 0
    file: int = 0
    #: Bytes that a compressed block takes in the file, at most.
    stored: int = 0

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def allocated(self) -> bool:
        return bool(self.flags & Flag.ALLOCATED)

    @property
    def zero(self) -> bool:
        return bool(self.flags & Flag.ZERO)

    @property
    def compressed(self) -> bool:
        return bool(self.flags & Flag.COMPRESSED)

    @property
    def present(self) -> bool:
        return bool(self.flags & Flag.PRESENT)

    def between(self, start: int, stop: int) -> Extent:
        """What of this lies in bytes [start, stop); a compressed block keeps its place."""
        first, end = max(self.start, start), min(self.end, stop)
        into = first - self.start if self.flags & Flag.OFFSET else 0
        return evolve(self, start=first, length=end - first, host=self.host + into)


#: Names of the columns, in the order of `Columns.views`.
NAMES = ("start", "length", "host", "stored", "depth", "file", "flags")


class Extents(Sequence[Extent]):
    """Extents in guest order, without gaps or overlaps.

    Each column is a memoryview (start, length, host: uint64; stored: uint32; depth, file:
    uint16; flags: uint8, see `Flag`) that numpy, polars and pandas take without a copy.
    Objects are built only when someone iterates.
    """

    __slots__ = ("_columns", "depth", "file", "flags", "host", "length", "start", "stored")

    def __init__(self, columns: Columns | None, views: Sequence[memoryview] | None = None) -> None:
        self._columns = columns
        if views is None:
            assert columns is not None
            views = columns.views()
        (
            self.start,
            self.length,
            self.host,
            self.stored,
            self.depth,
            self.file,
            self.flags,
        ) = views

    @classmethod
    def of(cls, extents: Sequence[Extent]) -> Extents:
        """Columns of extents that are given as objects; neighbours that go on are joined."""
        columns = Columns(max(1, len(extents)))
        for one in extents:
            columns.add(
                one.start, one.length, one.host, one.flags, one.depth, one.file, one.stored
            )
        return cls(columns)

    @property
    def columns(self) -> Columns:
        """The whole columns, as C takes them; a slice is copied for it."""
        if self._columns is None:
            self._columns = Extents.of(self)._columns
        assert self._columns is not None
        return self._columns

    def views(self) -> list[memoryview]:
        return [getattr(self, name) for name in NAMES]

    def __len__(self) -> int:
        return len(self.start)

    @overload
    def __getitem__(self, index: int) -> Extent: ...
    @overload
    def __getitem__(self, index: slice) -> Extents: ...
    def __getitem__(self, index: int | slice) -> Extent | Extents:
        if isinstance(index, slice):
            if index.step not in (None, 1):
                raise ValueError("extents are sliced without a step")
            return Extents(None, [view[index] for view in self.views()])
        return _extent(*(view[index] for view in self.views()))

    def __iter__(self) -> Iterator[Extent]:
        return map(_extent, *self.views())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extents):
            return NotImplemented
        return all(a == b for a, b in zip(self.views(), other.views(), strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        head = ", ".join(map(repr, islice(self, 2)))
        return f"<Extents: {len(self)}{': ' + head if head else ''}{', …' * (len(self) > 2)}>"

    def json(self, *, compressed: bool = False) -> str:
        """The text that ``qemu-img map --output=json`` prints for these extents.

        With `compressed` also the key that QEMU 8.2 and later print.
        """
        if not len(self):
            return _NOTHING
        return self.columns.json(compressed)

    def numpy(self) -> dict[str, Any]:
        """The columns as numpy arrays over the same memory."""
        numpy: Any = import_module("numpy")
        return {name: numpy.asarray(getattr(self, name)) for name in NAMES}

    def to_pandas(self) -> Any:
        """A pandas data frame over the same memory."""
        pandas: Any = import_module("pandas")
        return pandas.DataFrame(self.numpy(), copy=False)

    def to_polars(self) -> Any:
        """A polars data frame over the same memory."""
        polars: Any = import_module("polars")
        return polars.DataFrame(self.numpy())


# QEMU prints one entry even for an image of no bytes.
_NOTHING = (
    '[{ "start": 0, "length": 0, "depth": 0, "present": false, "zero": false, "data": false}]\n'
)


def _extent(
    start: int, length: int, host: int, stored: int, depth: int, file: int, flags: int
) -> Extent:
    return Extent(start, length, host, Flag(flags), depth, file, stored)
