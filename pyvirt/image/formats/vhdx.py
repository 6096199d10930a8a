"""VHDX images of Hyper-V: one table of blocks, with sector bitmaps between them.

Source: Microsoft's [MS-VHDX].
"""

from __future__ import annotations

from attrs import frozen

from pyvirt._native.blocks import Rule
from pyvirt.image.budget import Budget
from pyvirt.image.formats import vhdx_header, vhdx_log
from pyvirt.image.formats.blocks import (
    ABSENT,
    DATA,
    DIVIDED,
    INVALID,
    ZERO,
    Bitmap,
    BlockLayer,
    DividedLayer,
    Map,
    OneTable,
)
from pyvirt.image.formats.parent import posix
from pyvirt.image.formats.vhdx_header import BAT_REGION, METADATA_REGION, MIB, SIGNATURE, Region
from pyvirt.image.formats.vhdx_metadata import Metadata, metadata
from pyvirt.image.layer import Match, Reference, Siblings
from pyvirt.image.source import Source, exactly, name_of
from pyvirt.image.structure import Place

# States of a block, as far as a reader tells them apart: not present, undefined, zero, unmapped,
# (none), unmapped as version 0.95 wrote it, fully present, partially present.
_ALONE = [ZERO, ZERO, ZERO, ZERO, INVALID, ZERO, DATA, INVALID]
_OVER_PARENT = [ABSENT, *_ALONE[1:7], DATA | DIVIDED]
_SB_BLOCK_PRESENT = 6
_RESERVED = 0xFFFF8  # bits of an entry between its state and its offset


@frozen
class Info:
    """What the image says of itself."""

    creator: str
    header: vhdx_header.Header
    metadata: Metadata
    bat: Region
    #: The log held writes that were not finished; they are read as if they were.
    log_replayed: bool


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    return Match("vhdx", 100, "begins with 'vhdxfile'") if head.startswith(SIGNATURE) else None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> BlockLayer:
    place = Place(name_of(source), "vhdx", "header")
    creator = vhdx_header.identifier(source)
    if exactly(source, 8, 0, "file type identifier") != SIGNATURE:
        raise place.error("does not begin with vhdxfile", 0)
    header = vhdx_header.header(place, source)
    whole = vhdx_log.replayed(place, source, header, budget)
    regions = vhdx_header.regions(place, whole)
    about = metadata(place, whole, regions[METADATA_REGION])
    bat = regions[BAT_REGION]
    if bat.length < 8 * about.bat_entries:
        raise place.error("has too short a BAT", found=bat.length, expected=8 * about.bat_entries)
    info = Info(creator, header, about, bat, whole is not source)
    return _layer(place.table_at(bat.file_offset, "BAT"), whole, info, budget)


def _layer(place: Place, source: Source, info: Info, budget: Budget) -> BlockLayer:
    about = info.metadata
    rule = Rule(
        block=about.block_size,
        unit=MIB,
        shift=20,
        limit=source.size,
        flags=_OVER_PARENT if about.has_parent else _ALONE,
        state_mask=7,
        reserved=_RESERVED,
        period=about.chunk_ratio,
    )
    identity = str(info.header.data_write_guid)
    table = OneTable(info.bat.file_offset, 8)
    map = Map(place, source, rule, about.block_size, 8, table, period=about.chunk_ratio)
    if not about.has_parent:
        return BlockLayer(map, about.virtual_disk_size, info, budget=budget, identity=identity)
    return DividedLayer(
        map,
        about.virtual_disk_size,
        info,
        bitmap=_Bitmaps(place, source, info).bitmap,
        big=False,
        sector=about.logical_sector_size,
        budget=budget,
        references=_references(about),
        identity=identity,
        parent_identity=about.parent_locator.get("parent_linkage", "").strip("{}").lower(),
    )


@frozen
class _Bitmaps:
    """The bitmaps of the sectors of partially present blocks, one for each chunk of blocks."""

    place: Place
    source: Source
    info: Info

    def bitmap(self, start: int, host: int) -> Bitmap:
        about = self.info.metadata
        chunk, block = divmod(start // about.block_size, about.chunk_ratio)
        offset = self.info.bat.file_offset + 8 * (chunk * (about.chunk_ratio + 1))
        offset += 8 * about.chunk_ratio
        entry = int.from_bytes(exactly(self.source, 8, offset, self.place.table), "little")
        if entry & 7 != _SB_BLOCK_PRESENT:
            raise self.place.error("lacks a sector bitmap", offset, found=hex(entry))
        size = about.block_size // about.logical_sector_size // 8
        where = (entry >> 20) * MIB + block * size
        return Bitmap(exactly(self.source, size, where, "sector bitmap"), host)


def _references(about: Metadata) -> tuple[Reference, ...]:
    """The parent's names, the relative one first, since it survives moving both files."""
    keys = ("relative_path", "volume_path", "absolute_win32_path")
    names = [(key, about.parent_locator[key]) for key in keys if key in about.parent_locator]
    return tuple(
        Reference("backing", posix(name) if key == keys[0] else name, "vhdx") for key, name in names
    )
