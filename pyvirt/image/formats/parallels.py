"""Parallels images: one table of clusters. Source: QEMU's docs/interop/parallels.txt."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from pyvirt._native.blocks import Rule
from pyvirt.image.budget import Budget
from pyvirt.image.formats.blocks import ABSENT, DATA, BlockLayer, Map, OneTable
from pyvirt.image.layer import Match, Siblings
from pyvirt.image.source import Source, name_of
from pyvirt.image.structure import Fault, Place, at

#: Offsets in sectors; and in clusters.
MAGIC, MAGIC_EXT = b"WithoutFreeSpace", b"WithouFreSpacExt"
SECTOR = 512
HEADER = 64
IN_USE = 0x746F6E59
FLAG_EMPTY = 1


@frozen
class Header:
    """The header; `tracks` are the sectors of a cluster, `data_off` is in sectors."""

    magic: bytes = at(0, "16s")
    version: int = at(16, "I")
    heads: int = at(20, "I")
    cylinders: int = at(24, "I")
    tracks: int = at(28, "I")
    bat_entries: int = at(32, "I")
    nb_sectors: int = at(36, "Q")
    inuse: int = at(44, "I")
    data_off: int = at(48, "I")
    flags: int = at(52, "I")
    ext_off: int = at(56, "Q")

    @property
    def in_use(self) -> bool:
        """The image was not closed."""
        return self.inuse == IN_USE

    @property
    def extended(self) -> bool:
        """Entries count clusters, so that the image may be larger than 2 TiB."""
        return self.magic == MAGIC_EXT

    @property
    def sectors(self) -> int:
        """Sectors of the disk; the old kind has 32 bits for them."""
        return self.nb_sectors if self.extended else self.nb_sectors & 0xFFFFFFFF


def _faults(header: Header, size: int) -> Iterator[Fault]:
    if header.magic not in (MAGIC, MAGIC_EXT):
        yield "magic", f"{MAGIC!r} or {MAGIC_EXT!r}"
    if header.version != 2:
        yield "version", "2"
    if not 0 < header.tracks <= (1 << 31) // 513:
        yield "tracks", "1 to 4186128"
    if HEADER + 4 * header.bat_entries > size:
        yield "bat_entries", f"at most {(size - HEADER) // 4} in a file of {size} bytes"
    if header.sectors > header.bat_entries * header.tracks:
        yield "nb_sectors", f"at most {header.bat_entries * header.tracks}"
    if header.data_off * SECTOR > size:
        yield "data_off", "inside the file"


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    if head[:16] in (MAGIC, MAGIC_EXT) and head[16:20] == b"\2\0\0\0":
        return Match("parallels", 100, f"begins with '{head[:16].decode()}' and version 2")
    return None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> BlockLayer:
    place = Place(name_of(source), "parallels", "header")
    header = place.read(Header, source, "<")
    place.check(header, _faults(header, source.size))
    cluster = header.tracks * SECTOR
    rule = Rule(
        block=cluster,
        unit=cluster if header.extended else SECTOR,
        limit=source.size,
        flags=[DATA],
        special=[(0, ABSENT)],
        width=4,
    )
    map = Map(place.table_at(HEADER, "BAT"), source, rule, cluster, 4, OneTable(HEADER, 4))
    return BlockLayer(map, header.sectors * SECTOR, header, budget=budget)
