"""Raw images: bytes as they are, with the holes of their file."""

from __future__ import annotations

from attrs import frozen

from pyvirt._native.columns import Columns
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Extents, Flag
from pyvirt.image.layer import Match, Reference, Shown, Siblings
from pyvirt.image.source import Source

#: QEMU counts raw images in whole sectors.
SECTOR = 512
DATA = Flag.ALLOCATED | Flag.PRESENT | Flag.OFFSET
HOLE = Flag.ZERO | Flag.PRESENT | Flag.OFFSET


@frozen
class RawInfo:
    """A raw image has no header; `size` in bytes is that of its file."""

    size: int


class RawLayer(Shown):
    """A file that is its own content."""

    format = "raw"
    block = SECTOR
    references: tuple[Reference, ...] = ()

    def __init__(self, source: Source, budget: Budget) -> None:
        self.sources = (source,)
        self.size = -(-source.size // SECTOR) * SECTOR
        self.info = RawInfo(source.size)
        self.budget = budget

    def extents(self, start: int = 0, stop: int | None = None) -> Extents:
        """Data and holes, by SEEK_DATA where the source is a file."""
        stop = self.size if stop is None else min(stop, self.size)
        parts = [part for part in data(self.sources[0]) if part[1] > start and part[0] < stop]
        columns = Columns(self.budget.extents(2 * len(parts) + 1))
        at = start
        for first, end in parts:
            first, end = max(first, at), min(-(-end // SECTOR) * SECTOR, stop)
            columns.add(at, first - at, at, HOLE)
            columns.add(first, end - first, first, DATA)
            at = end
        columns.add(at, max(stop - at, 0), at, HOLE)
        return Extents(columns)

    def inflate(self, data: bytes, size: int) -> bytes:
        raise AssertionError("a raw image has no compressed blocks")


def data(source: Source) -> list[tuple[int, int]]:
    """The parts of `source` that are no holes of its file."""
    find = getattr(source, "data", None)
    if find is not None:
        return list(find())
    return [(0, source.size)] if source.size else []


def probe(head: bytes, size: int, tail: bytes) -> Match:
    return Match("raw", 1, "every file is a raw image of itself")


def open(source: Source, *, budget: Budget, siblings: Siblings) -> RawLayer:
    return RawLayer(source, budget)
