"""The layers of a chain laid over each other, as QEMU reads them."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from pyvirt._native.columns import Columns
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Extents
from pyvirt.image.layer import Layer
from pyvirt.image.qcow2.layer import Qcow2Layer
from pyvirt.image.source import Source


def merge(layers: Sequence[Layer], start: int, stop: int, budget: Budget) -> Extents:
    """What is where in guest bytes [start, stop) of a chain, top first."""
    first, last = _around(layers, start, stop)
    alike = [layer for layer in layers if isinstance(layer, Qcow2Layer)]
    if 1 < len(layers) == len(alike) and _alike(alike):
        return alike[0].flatten(alike, first, min(last, alike[0].size))
    found = layers[-1].extents(first, min(last, layers[-1].size))
    for layer, below in zip(layers[-2::-1], layers[:0:-1], strict=True):
        own = layer.extents(first, min(last, layer.size))
        found = lay(own, found, below.size, budget)
    return found


def _alike(layers: Sequence[Qcow2Layer]) -> bool:
    """Whether L2 tables can be laid over each other entry by entry."""
    headers = [layer.header for layer in layers]
    shapes = {(one.cluster_bits, one.version, one.crypt_method) for one in headers}
    plain = not any(one.extended or one.external for one in headers)
    return plain and len(shapes) == 1 and min(layer.size for layer in layers) >= layers[0].size


def lay(top: Extents, below: Extents, below_end: int, budget: Budget) -> Extents:
    """`top` over `below`, whose image ends at byte `below_end`: zeros beyond it."""
    columns = Columns(budget.extents(2 * len(top) + len(below) + 1))
    columns.lay(top.columns, below.columns, below_end)
    return Extents(columns)


def mark_holes(layers: Sequence[Layer | None], extents: Extents, budget: Budget) -> Extents:
    """`extents` of a chain, with holes of the files of `layers` told as zero; None: not of it."""
    files = max((len(layer.sources) for layer in layers if layer), default=0)
    for number in range(files):
        maps = [_map(layer, number) for layer in layers]
        if any(one is not None for one in maps):
            extents = Extents(extents.columns.mark(maps, number, budget.extents(1 << 62)))
    return extents


def _map(layer: Layer | None, number: int) -> array[int] | None:
    """The parts of a source that are no holes, in whole sectors, or None if it cannot tell."""
    source: Source | None = None
    if layer is not None and number < len(layer.sources):
        source = layer.sources[number]
    find = getattr(source, "data", None)
    if find is None:
        return None
    return array("Q", (-(-place // 512) * 512 for pair in find() for place in pair))


def clip(extents: Extents, start: int, stop: int) -> Extents:
    """What of `extents` lies in bytes [start, stop)."""
    if not len(extents) or (extents.start[0] >= start and extents[-1].end <= stop):
        return extents
    first = bisect_right(extents.start, start) - 1
    found = [one.between(start, stop) for one in extents[first : bisect_left(extents.start, stop)]]
    return Extents.of(found)


def _around(layers: Sequence[Layer], start: int, stop: int) -> tuple[int, int]:
    """The range in whole blocks of all `layers`."""
    block = math.lcm(*(layer.block for layer in layers))
    return start // block * block, -(-stop // block) * block
