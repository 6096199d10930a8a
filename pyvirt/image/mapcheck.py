"""The check of an image that is a map of blocks: each has a place of its own, in the file.

What ``qemu-img check`` finds in VDI, VMDK, VHDX and Parallels images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyvirt.errors import ImageError
from pyvirt.image.extents import Extents, Flag
from pyvirt.image.layer import Layer
from pyvirt.image.qcow2.check import CheckResult, Finding

FORMATS = ("vdi", "vmdk", "vhdx", "parallels")


def check_map(layer: Layer) -> CheckResult:
    """Check the map of one layer. A block beyond the file ends it: that map cannot be told."""
    try:
        extents = layer.extents()
    except ImageError as error:
        if error.table is None or error.offset is None:
            raise
        found = int(str(error.found), 0) if error.found is not None else 0
        lost = Finding(error.reason, error.table, error.offset, found, 0)
        return _result(layer, Extents.of([]), [lost], 0)
    findings = [*_shared(extents), *_said(layer, extents)]
    return _result(layer, extents, findings, _behind(layer, extents))


def _stored(extents: Extents) -> Iterator[tuple[int, int, int, int]]:
    """File, place, length and first guest byte of what is stored as it is."""
    columns = zip(extents.file, extents.host, extents.length, extents.start, extents.flags,
                  strict=True)  # fmt: skip
    for file, host, length, start, flags in columns:
        if flags & Flag.OFFSET and flags & Flag.ALLOCATED:
            yield file, host, length, start


def _shared(extents: Extents) -> Iterator[Finding]:
    """Blocks that begin before the one before them in the file ends."""
    last, end = -1, 0
    for file, host, length, start in sorted(_stored(extents)):
        if file == last and host < end:
            yield Finding("the place of two blocks", "data", host, start, 0)
        end = max(end, host + length) if file == last else host + length
        last = file


def _said(layer: Layer, extents: Extents) -> Iterator[Finding]:
    """What the header says and the map does not."""
    info: Any = layer.info
    if layer.format == "parallels" and info.in_use:
        yield Finding("the image was not closed", "header", 44, info.inuse, 0)
    if layer.format == "vdi":
        blocks = sum(-(-length // layer.block) for _, _, length, _ in _stored(extents))
        if blocks != info.blocks_allocated:
            yield Finding("wrong number of blocks", "header", 388, info.blocks_allocated, blocks)


def _behind(layer: Layer, extents: Extents) -> int:
    """Clusters behind the last one that a Parallels image uses: it grows at its end only."""
    if layer.format != "parallels":
        return 0
    info: Any = layer.info
    end = max([info.data_off * 512, *(host + length for _, host, length, _ in _stored(extents))])
    behind: int = layer.sources[0].size - -(-end // layer.block) * layer.block
    return -(-max(0, behind) // layer.block)


def _result(layer: Layer, extents: Extents, findings: list[Finding], leaks: int) -> CheckResult:
    sums = extents.columns.sums(layer.block)
    ends = [host + length for file, host, length, _ in _stored(extents) if file == 0]
    return CheckResult(
        corruptions=len(findings),
        leaks=leaks,
        overlaps=sum(one.table == "data" for one in findings),
        total_clusters=-(-layer.size // layer.block),
        allocated_clusters=sums["touched"],
        fragmented_clusters=max(0, sums["pieces"] - 1),
        compressed_clusters=-(-sums["compressed"] // layer.block),
        image_end_offset=max(ends, default=0),
        findings_lost=0,
        findings=findings,
    )
