"""Sparse extents of VMDKs: hosted ones (KDMV), those of ESX (COWD) and seSparse ones.

Sources: VMware's "Virtual Disk Format 5.0"; for seSparse, QEMU's block/vmdk.c. A grain
directory names grain tables, these name grains; offsets are in sectors.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from pyvirt._native.blocks import Rule
from pyvirt.errors import FeatureError
from pyvirt.image.formats.blocks import (
    ABSENT,
    DATA,
    INVALID,
    PACKED,
    ZERO,
    Directory,
    Map,
)
from pyvirt.image.source import Source
from pyvirt.image.structure import Fault, Place, at, divided, power_of_two

SECTOR = 512
KDMV, COWD = b"KDMV", b"COWD"
SESPARSE = 0xCAFEBABE
GD_AT_END = 0xFFFFFFFFFFFFFFFF
FLAG_NEWLINES, FLAG_REDUNDANT, FLAG_ZERO_GRAIN = 1, 2, 4
FLAG_COMPRESSED, FLAG_MARKERS = 1 << 16, 1 << 17
COMPRESSION_DEFLATE = 1
MARKER = 12  # bytes of a grain marker: the grain's first sector, and its size stored
_FOOTER, _END_OF_STREAM = 3, 0


@frozen
class SparseHeader:
    """The header of a hosted sparse extent; sizes and offsets in sectors."""

    magic_number: bytes = at(0, "4s")
    version: int = at(4, "I")
    flags: int = at(8, "I")
    capacity: int = at(12, "Q")
    grain_size: int = at(20, "Q")
    descriptor_offset: int = at(28, "Q")
    descriptor_size: int = at(36, "Q")
    num_gtes_per_gt: int = at(44, "I")
    rgd_offset: int = at(48, "Q")
    gd_offset: int = at(56, "Q")
    over_head: int = at(64, "Q")
    unclean_shutdown: int = at(72, "B")
    newlines: bytes = at(73, "4s")
    compress_algorithm: int = at(77, "H")

    @property
    def compressed(self) -> bool:
        return self.compress_algorithm == COMPRESSION_DEFLATE


@frozen
class CowdHeader:
    """The header of a sparse extent of ESX; sizes and offsets in sectors."""

    magic_number: bytes = at(0, "4s")
    version: int = at(4, "I")
    flags: int = at(8, "I")
    num_sectors: int = at(12, "I")
    grain_size: int = at(16, "I")
    gd_offset: int = at(20, "I")
    num_gd_entries: int = at(24, "I")
    free_sector: int = at(28, "I")


@frozen
class SeSparseHeader:
    """The constant header of a seSparse extent; sizes and offsets in sectors."""

    magic: int = at(0, "Q")
    version: int = at(8, "Q")
    capacity: int = at(16, "Q")
    grain_size: int = at(24, "Q")
    grain_table_size: int = at(32, "Q")
    flags: int = at(40, "Q")
    reserved: bytes = at(48, "32s")
    volatile_header_offset: int = at(80, "Q")
    volatile_header_size: int = at(88, "Q")
    journal_header_offset: int = at(96, "Q")
    journal_header_size: int = at(104, "Q")
    journal_offset: int = at(112, "Q")
    journal_size: int = at(120, "Q")
    grain_dir_offset: int = at(128, "Q")
    grain_dir_size: int = at(136, "Q")
    grain_tables_offset: int = at(144, "Q")
    grain_tables_size: int = at(152, "Q")
    free_bitmap_offset: int = at(160, "Q")
    free_bitmap_size: int = at(168, "Q")
    backmap_offset: int = at(176, "Q")
    backmap_size: int = at(184, "Q")
    grains_offset: int = at(192, "Q")
    grains_size: int = at(200, "Q")


@frozen
class _VolatileHeader:
    magic: int = at(0, "Q")
    free_gt_number: int = at(8, "Q")
    next_txn_seq_number: int = at(16, "Q")
    replay_journal: int = at(24, "Q")


@frozen
class _Marker:
    value: int = at(0, "Q")
    size: int = at(8, "I")
    type: int = at(12, "I")


AnyHeader = SparseHeader | CowdHeader | SeSparseHeader


@frozen
class SparseExtent:
    """A sparse extent: its header, its size in bytes, and the map of its grains."""

    header: AnyHeader
    size: int
    map: Map


def _directory(
    place: Place,
    source: Source,
    offset: int,
    rule: Rule,
    entries: int,
    width: int,
    spare: int | None = None,
) -> Directory:
    return Directory(
        place.table_at(0, "grain directory"), source, offset, width, rule, entries, width, spare
    )


# -- Hosted sparse extents --------------------------------------------------------------------


def sparse_header(place: Place, source: Source) -> SparseHeader:
    """The header of a hosted sparse extent; the footer's copy where that counts."""
    header = place.read(SparseHeader, source, "<")
    if header.gd_offset == GD_AT_END:
        place, header = _footer(place, source)
    if header.version not in (1, 2, 3):
        raise FeatureError(place.path, "vmdk", (f"version {header.version}",))
    place.check(header, _sparse_faults(header, source.size))
    return header


def _footer(place: Place, source: Source) -> tuple[Place, SparseHeader]:
    """The footer is between its own marker and the one that ends the stream."""
    end = source.size // SECTOR * SECTOR
    if end < 4 * SECTOR:
        raise place.error("has no room for a footer", end)
    place = place.table_at(end - 2 * SECTOR, "footer")
    for offset, kind in ((end - 3 * SECTOR, _FOOTER), (end - SECTOR, _END_OF_STREAM)):
        marker = place.table_at(offset).read(_Marker, source, "<")
        if marker.size or marker.type != kind:
            raise place.table_at(offset).wrong(marker, "type", str(kind))
    return place, place.read(SparseHeader, source, "<")


def _sparse_faults(header: SparseHeader, size: int) -> Iterator[Fault]:
    if header.magic_number != KDMV:
        yield "magic_number", repr(KDMV)
    if header.flags & FLAG_NEWLINES and header.newlines != b"\n \r\n":
        yield "newlines", r"'\n \r\n', unless a copy as text has spoilt the file"
    if header.compress_algorithm not in (0, COMPRESSION_DEFLATE):
        yield "compress_algorithm", "0 (none) or 1 (deflate)"
    end = (header.descriptor_offset + header.descriptor_size) * SECTOR
    if header.descriptor_size and end > size:
        yield "descriptor_offset", f"{header.descriptor_size} sectors inside the file"
    if header.capacity:  # Without it the descriptor alone counts.
        yield from _grain_faults(header, size)


def _grain_faults(header: SparseHeader, size: int) -> Iterator[Fault]:
    if not power_of_two(header.grain_size) or header.grain_size > 0x200000:
        yield "grain_size", "a power of two up to 2097152"
    if not 0 < header.num_gtes_per_gt <= 512:
        yield "num_gtes_per_gt", "1 to 512"
    elif header.grain_size:
        tables = divided(header.capacity, header.grain_size * header.num_gtes_per_gt)
        if not 0 < header.gd_offset * SECTOR <= size - 4 * tables:
            yield "gd_offset", f"{4 * tables} bytes inside the file"
    if header.capacity > 1 << 53:
        yield "capacity", "at most 2^53"
    if header.over_head * SECTOR > size and not header.compressed:
        yield "over_head", f"at most {size // SECTOR}"


def sparse_extent(
    place: Place, source: Source, header: SparseHeader, file: int = 0
) -> SparseExtent:
    """The map of a hosted sparse extent, by its redundant directory if the other is broken."""
    grain, entries = header.grain_size * SECTOR, header.num_gtes_per_gt
    special = [(0, ABSENT), (1, ZERO)][: 2 if header.flags & FLAG_ZERO_GRAIN else 1]
    gd = Rule(
        block=entries * 4,
        unit=SECTOR,
        limit=source.size,
        flags=[DATA],
        special=[(0, ABSENT)],
        width=4,
    )
    gt = Rule(
        block=grain,
        unit=SECTOR,
        limit=source.size,
        flags=[PACKED if header.compressed else DATA],
        special=special,
        width=4,
        stored=2 * grain + MARKER,
        file=file,
    )
    spare = header.rgd_offset * SECTOR if header.flags & FLAG_REDUNDANT else None
    tables = _directory(place, source, header.gd_offset * SECTOR, gd, entries, 4, spare or None)
    map = Map(place.table_at(0, "grain table"), source, gt, grain, 4, tables)
    return SparseExtent(header, header.capacity * SECTOR, map)


# -- Sparse extents of ESX --------------------------------------------------------------------


def _cowd_faults(header: CowdHeader, size: int) -> Iterator[Fault]:
    if header.magic_number != COWD:
        yield "magic_number", repr(COWD)
    if header.version != 1:
        yield "version", "1"
    if not 0 < header.grain_size <= 0x200000:
        yield "grain_size", "1 to 2097152"
    elif header.num_gd_entries < divided(header.num_sectors, header.grain_size * 4096):
        yield "num_gd_entries", "enough for num_sectors"
    if not 0 < header.gd_offset * SECTOR <= size - 4 * header.num_gd_entries:
        yield "gd_offset", f"{4 * header.num_gd_entries} bytes inside the file"


def cowd_extent(place: Place, source: Source, file: int = 0) -> SparseExtent:
    """The map of a sparse extent of ESX; its tables have 4,096 entries."""
    header = place.read(CowdHeader, source, "<")
    place.check(header, _cowd_faults(header, source.size))
    grain = header.grain_size * SECTOR
    special = [(0, ABSENT)]
    gd = Rule(block=16384, unit=SECTOR, limit=source.size, flags=[DATA], special=special, width=4)
    gt = Rule(
        block=grain,
        unit=SECTOR,
        limit=source.size,
        flags=[DATA],
        special=special,
        width=4,
        file=file,
    )
    tables = _directory(place, source, header.gd_offset * SECTOR, gd, 4096, 4)
    map = Map(place.table_at(0, "grain table"), source, gt, grain, 4, tables)
    return SparseExtent(header, header.num_sectors * SECTOR, map)


# -- seSparse extents -------------------------------------------------------------------------


def _sesparse_faults(header: SeSparseHeader, size: int) -> Iterator[Fault]:
    for field, value in (
        ("magic", SESPARSE),
        ("version", 0x0000000200000001),
        ("grain_size", 8),
        ("grain_table_size", 64),
        ("flags", 0),
        ("reserved", bytes(32)),
    ):
        if getattr(header, field) != value:
            yield field, str(value)
    for name in ("grain_dir", "grain_tables", "grains"):
        end = getattr(header, f"{name}_offset") + getattr(header, f"{name}_size")
        if getattr(header, f"{name}_offset") * SECTOR > size or end > 1 << 53:
            yield f"{name}_offset", "inside the file"
    if divided(header.capacity, 8 * 4096) * 8 > header.grain_dir_size * SECTOR:
        yield "capacity", f"at most {header.grain_dir_size * 64 * 8 * 4096}"
    if (header.grain_dir_offset + header.grain_dir_size) * SECTOR > size:
        yield "grain_dir_size", "inside the file"


def sesparse_extent(place: Place, source: Source, file: int = 0) -> SparseExtent:
    """The map of a seSparse extent, whose entries begin with four bits of state."""
    header = place.read(SeSparseHeader, source, "<")
    place.check(header, _sesparse_faults(header, source.size))
    _refuse_journal(place.table_at(header.volatile_header_offset * SECTOR), source)
    grain = header.grain_size * SECTOR
    others = [INVALID] * 12
    gd = Rule(
        block=4096 * 8,
        unit=4096 * 8,
        base=header.grain_tables_offset * SECTOR,
        limit=source.size,
        flags=[INVALID, DATA, INVALID, INVALID, *others],
        special=[(0, ABSENT)],
        mask=0xFFFFFFFF,
        reserved=0x0FFFFFFF00000000,
        state_shift=60,
        state_mask=15,
    )
    # A grain's number: bits 48 to 59 are its low ones, bits 0 to 47 its high ones.
    gt = Rule(
        block=grain,
        unit=grain,
        base=header.grains_offset * SECTOR,
        limit=source.size,
        flags=[INVALID, ZERO, ZERO, DATA, *others],
        special=[(0, ABSENT)],
        shift=48,
        mask=0xFFF,
        high_mask=0xFFFFFFFFFFFF,
        high_shift=12,
        state_shift=60,
        state_mask=15,
        file=file,
    )
    tables = _directory(place, source, header.grain_dir_offset * SECTOR, gd, 4096, 8)
    map = Map(place.table_at(0, "grain table"), source, gt, grain, 8, tables)
    return SparseExtent(header, header.capacity * SECTOR, map)


def _refuse_journal(place: Place, source: Source) -> None:
    """Writes that a journal still holds cannot be read."""
    header = place.table_at(place.offset, "volatile header").read(_VolatileHeader, source, "<")
    if header.magic != 0xCAFECAFE:
        raise place.wrong(header, "magic", str(0xCAFECAFE))
    if header.replay_journal:
        raise FeatureError(place.path, "vmdk", ("replay of a seSparse journal",))
