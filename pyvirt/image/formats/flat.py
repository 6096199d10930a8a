"""Layers whose bytes lie in their file as the guest sees them, holes of the file included."""

from __future__ import annotations

from array import array
from itertools import chain
from typing import Any

from pyvirt._native.columns import Columns
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Extents
from pyvirt.image.formats.blocks import DATA, SECTOR
from pyvirt.image.formats.raw import data
from pyvirt.image.layer import Reference, Shown
from pyvirt.image.source import Source


class FlatLayer(Shown):
    """The first `size` bytes of a file, as they are."""

    block = SECTOR
    references: tuple[Reference, ...] = ()

    def __init__(
        self,
        format: str,
        source: Source,
        size: int,
        info: Any,
        budget: Budget,
        identity: str | None = None,
    ) -> None:
        self.format, self.size, self.info = format, size, info
        self.sources = (source,)
        self.identity = identity
        self._budget = budget

    def extents(self, start: int = 0, stop: int | None = None) -> Extents:
        """Data and holes from byte `start` to `stop`."""
        stop = self.size if stop is None else min(stop, self.size)
        columns = Columns(1)
        if start < stop:
            columns.add(start, stop - start, start, DATA)
        return Extents(marked(columns, self.sources[0], self._budget))

    def inflate(self, data: bytes, size: int) -> bytes:
        """There is nothing to unpack."""
        raise ValueError(f"a flat image of format {self.format} has no compressed blocks")


def marked(columns: Columns, source: Source, budget: Budget, file: int = 0) -> Columns:
    """`columns`, split where `source` has holes: these read as zeros."""
    parts = [(first, -(-end // SECTOR) * SECTOR) for first, end in data(source)]
    pairs = array("Q", chain.from_iterable(parts))
    return columns.mark([pairs], file, budget.extents(1 << 62))
