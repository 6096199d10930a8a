"""Layers whose blocks are found in a table, or in tables that a directory names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from attrs import frozen

from pyvirt._native import blocks as native
from pyvirt._native.blocks import Rule
from pyvirt._native.columns import Columns
from pyvirt.errors import BudgetError, ImageError
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Extents, Flag
from pyvirt.image.layer import Reference, Shown
from pyvirt.image.source import Source, exactly
from pyvirt.image.structure import Place, divided

#: A block that this layer does not have: the layer below decides.
ABSENT = 0
#: A block that reads as zeros and takes no place.
ZERO = int(Flag.PRESENT | Flag.ZERO)
#: A block that is stored as it is.
DATA = int(Flag.PRESENT | Flag.ALLOCATED | Flag.OFFSET)
#: A block that is stored compressed.
PACKED = int(Flag.PRESENT | Flag.ALLOCATED | Flag.COMPRESSED)
#: An entry that no image may have.
INVALID = native.INVALID
#: Marks blocks that a bitmap divides.
DIVIDED = native.DIVIDED

SECTOR = 512

_PIECE = 4 << 20  # bytes of a table that are read at once


@frozen
class Run:
    """Entries that follow one another in the file; without `offset` there is no table."""

    index: int
    count: int
    offset: int | None


class Tables(Protocol):
    """Where the entries of a map are."""

    def runs(self, first: int, last: int) -> Iterator[Run]:
        """Entries `first` up to `last` (excluded), in order."""
        ...


@frozen
class OneTable:
    """All entries in one table at `offset`."""

    offset: int
    width: int

    def runs(self, first: int, last: int) -> Iterator[Run]:
        yield Run(first, last - first, self.offset + first * self.width)


@frozen
class Directory:
    """A table of tables: itself a map, whose blocks are the tables of `entries` entries each.

    Tables do not share bytes, so together they are no larger than the file. That bounds the
    work, whatever the directory says.
    """

    place: Place
    source: Source
    offset: int
    width: int
    #: How an entry of the directory is read; its block is the size of a table.
    rule: Rule
    entries: int
    entry_width: int
    #: Where the copy of it is that names copies of its tables, for one that is broken.
    spare: int | None = None

    def runs(self, first: int, last: int) -> Iterator[Run]:
        try:
            tables = self._tables(self.offset, first, last)
        except ImageError:
            if self.spare is None:
                raise
            tables = self._tables(self.spare, first, last)
        for extent in tables:
            index, count = extent.start // self.entry_width, extent.length // self.entry_width
            where = extent.host if extent.allocated else None
            yield _cut(Run(index, count, where), first, last, self.entry_width)

    def _tables(self, offset: int, first: int, last: int) -> Extents:
        """The tables that the directory at `offset` names, as extents of all entries."""
        size = self.entries * self.entry_width
        begin, end = first // self.entries, divided(last, self.entries)
        columns = Columns(end - begin + 2)
        table = self.place.table_at(offset)
        entries = Run(begin, end - begin, offset + begin * self.width)
        _decode(
            self.source, table, self.rule, columns, entries, self.width, begin * size, end * size
        )
        tables = Extents(columns)
        named = sum(one.length for one in tables if one.allocated)
        if named > self.source.size:
            raise table.error("names tables that overlap")
        return tables


def _cut(run: Run, first: int, last: int, width: int) -> Run:
    """The part of a run that belongs to the entries that are asked for."""
    index, stop = max(run.index, first), min(run.index + run.count, last)
    offset = None if run.offset is None else run.offset + (index - run.index) * width
    return Run(index, stop - index, offset)


def _decode(
    source: Source,
    place: Place,
    rule: Rule,
    columns: Columns,
    run: Run,
    width: int,
    guest: int,
    end: int,
    more: int = 0,
) -> None:
    """Decode the entries of a run, the first of which maps `guest`, up to `end`.

    So many `more` entries are read behind them.
    """
    assert run.offset is not None
    index, last = run.index, run.index + run.count
    while guest < end and index < last:
        size = min(_PIECE, (last - index) * width)
        offset = run.offset + (index - run.index) * width
        table = exactly(source, size + more * width, offset, place.table)
        status, at, guest, found = rule.decode(columns, table, index, index, guest, end)
        if status != native.OK:
            raise _fault(place, status, offset + (at - index) * width, found)
        index += size // width


def _fault(place: Place, status: int, offset: int, found: int) -> Exception:
    if status == native.FULL:
        return BudgetError(f"the extents of {place.path}", 0)
    if status == native.TRUNCATED:
        return place.error("names a place beyond the end of the file", offset, found=hex(found))
    return place.error("has an entry of no known kind", offset, found=hex(found))


@frozen
class Map:
    """The blocks of a disk, and the tables that say where they are."""

    place: Place
    source: Source
    rule: Rule
    block: int
    width: int
    tables: Tables
    #: What blocks are whose table is missing.
    hole: int = ABSENT
    #: After so many entries one is left out.
    period: int = 0
    #: Entries behind the last block's that say where it ends.
    more: int = 0

    def fill(self, columns: Columns, start: int, stop: int, base: int = 0) -> None:
        """Add the extents of bytes `start` to `stop` of the map; guest offsets rise by `base`."""
        first, last = self._entry(start // self.block), self._entry(divided(stop, self.block))
        guest, end = base + start // self.block * self.block, base + stop
        for run in self.tables.runs(first, last):
            if run.offset is None:
                length = min(run.count * self.block, end - guest)
                columns.add(guest, length, 0, self.hole)
                guest += length
                continue
            _decode(
                self.source, self.place, self.rule, columns, run, self.width, guest, end, self.more
            )
            guest = min(end, guest + run.count * self.block)

    def _entry(self, block: int) -> int:
        """The number of the entry of a block."""
        return block + block // self.period if self.period else block


@frozen
class Bitmap:
    """Which sectors of a divided block are there, and where its first one is in the file."""

    bits: bytes
    host: int


class BlockLayer(Shown):
    """A layer that one map describes."""

    def __init__(
        self,
        map: Map,
        size: int,
        info: Any,
        *,
        budget: Budget,
        references: tuple[Reference, ...] = (),
        inflate: Callable[[bytes, int], bytes] | None = None,
        identity: str | None = None,
        parent_identity: str | None = None,
        preallocated: bool = False,
    ) -> None:
        self.format = map.place.format
        self.size, self.block, self.info = size, map.block, info
        self.sources: tuple[Source, ...] = (map.source,)
        self.references = references
        #: What images made over this one call it, and what this one calls its parent.
        self.identity, self.parent_identity = identity, parent_identity
        #: Blocks that nobody wrote to may be holes of the file.
        self.preallocated = preallocated
        self._map, self._budget, self._inflate = map, budget, inflate

    def extents(self, start: int = 0, stop: int | None = None) -> Extents:
        """This layer alone from byte `start` to `stop`, in whole blocks."""
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return Extents(Columns(1))
        start = start // self.block * self.block
        stop = min(self.size, divided(stop, self.block) * self.block)
        return self._extents(start, stop)

    def _extents(self, start: int, stop: int) -> Extents:
        columns = Columns(self._budget.extents((stop - start) // self.block + 2))
        self._map.fill(columns, start, stop)
        return Extents(columns)

    def inflate(self, data: bytes, size: int) -> bytes:
        """A compressed block, unpacked."""
        if self._inflate is None:
            raise ValueError(f"{self.format} has no compressed blocks")
        return self._inflate(data, size)


class DividedLayer(BlockLayer):
    """A layer whose blocks marked `DIVIDED` have a bitmap of their sectors each."""

    def __init__(
        self,
        map: Map,
        size: int,
        info: Any,
        *,
        bitmap: Callable[[int, int], Bitmap],
        big: bool,
        sector: int = SECTOR,
        clear: int = ABSENT,
        budget: Budget,
        references: tuple[Reference, ...] = (),
        identity: str | None = None,
        parent_identity: str | None = None,
    ) -> None:
        """`bitmap` finds that of a block by its first byte and by what its entry says.

        `big` is the order of the bits; sectors whose bit is not set are `clear`.
        """
        super().__init__(
            map,
            size,
            info,
            budget=budget,
            references=references,
            identity=identity,
            parent_identity=parent_identity,
        )
        self._bitmap, self._big, self._sector, self._clear = bitmap, big, sector, clear

    def _extents(self, start: int, stop: int) -> Extents:
        blocks = super()._extents(start, stop)
        columns = Columns(self._budget.extents((stop - start) // SECTOR + 2))
        for first, length, host, flags in zip(
            blocks.start, blocks.length, blocks.host, blocks.flags, strict=True
        ):
            if flags & DIVIDED:
                self._divide(columns, first, length, host)
            else:
                columns.add(first, length, host, flags)
        return Extents(columns)

    def _divide(self, columns: Columns, start: int, length: int, host: int) -> None:
        found = self._bitmap(start, host)
        end = start + length
        if found.host + length > self.sources[0].size:
            raise self._map.place.error("names a place beyond the end of the file", found=host)
        status = native.divide(
            columns,
            found.bits,
            self._big,
            self._sector,
            found.host,
            DATA,
            self._clear,
            0,
            start,
            end,
        )
        if status != native.OK:
            raise BudgetError(f"the extents of {self._map.place.path}", 0)
