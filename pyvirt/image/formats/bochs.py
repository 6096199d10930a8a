"""Bochs' growing images: a catalogue of extents, each with a bitmap of its sectors.

Source: Bochs' iodev/hdimage/hdimage.h. Redologs of other kinds lie over an image that they do
not name, so they are no images of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from pyvirt._native.blocks import Rule
from pyvirt.errors import FeatureError
from pyvirt.image.budget import Budget
from pyvirt.image.formats.blocks import (
    DATA,
    DIVIDED,
    SECTOR,
    ZERO,
    Bitmap,
    DividedLayer,
    Map,
    OneTable,
)
from pyvirt.image.layer import Match, Siblings
from pyvirt.image.source import Source, exactly, name_of
from pyvirt.image.structure import Fault, Place, at, divided, power_of_two, string

MAGIC = b"Bochs Virtual HD Image\0"
V1, V2 = 0x00010000, 0x00020000


@frozen
class Header:
    """The header; `header`, `bitmap`, `extent` and `disk` in bytes, `catalog` in entries."""

    magic: str = at(0, "32s", string)
    type: str = at(32, "16s", string)
    subtype: str = at(48, "16s", string)
    version: int = at(64, "I")
    header: int = at(68, "I")
    catalog: int = at(72, "I")
    bitmap: int = at(76, "I")
    extent: int = at(80, "I")
    disk: int = at(84, "Q")


@frozen
class HeaderV2(Header):
    """Version 2 puts the time of writing, in FAT's format, in front of the size."""

    timestamp: int = at(84, "I")
    disk: int = at(88, "Q")


def _faults(header: Header, size: int) -> Iterator[Fault]:
    if header.version not in (V1, V2):
        yield "version", "0x10000 or 0x20000"
    if header.type != "Redolog":
        yield "type", "Redolog"
    if not power_of_two(header.extent) or not SECTOR <= header.extent <= 8 << 20:
        yield "extent", "a power of two from 512 to 8 MiB"
    if not header.extent // SECTOR <= 8 * header.bitmap <= 8 << 20:
        yield "bitmap", f"{header.extent // SECTOR} bits to 1 MiB"
    if not 512 <= header.header <= size:
        yield "header", "at least 512, inside the file"
    if header.catalog > 1 << 20 or header.header + 4 * header.catalog > size:
        yield "catalog", "at most 1048576 entries, inside the file"
    if header.disk > header.catalog * header.extent:
        yield "disk", f"at most {header.catalog * header.extent}"


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    if head.startswith(MAGIC):
        return Match("bochs", 100, "begins with 'Bochs Virtual HD Image'")
    return None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> DividedLayer:
    place = Place(name_of(source), "bochs", "header")
    header = place.read(Header, source, "<")
    if header.version == V2:
        header = place.read(HeaderV2, source, "<")
    if not header.magic == MAGIC[:-1].decode():
        raise place.wrong(header, "magic", "Bochs Virtual HD Image")
    place.check(header, _faults(header, source.size))
    if header.subtype != "Growing":
        raise FeatureError(place.path, "bochs", (f"an image below redolog {header.subtype!r}",))
    return _layer(place, header, source, budget)


def _layer(place: Place, header: Header, source: Source, budget: Budget) -> DividedLayer:
    bits = divided(header.bitmap, SECTOR) * SECTOR

    def bitmap(start: int, host: int) -> Bitmap:
        return Bitmap(exactly(source, header.bitmap, host, "bitmap"), host + bits)

    rule = Rule(
        block=header.extent,
        base=header.header + 4 * header.catalog,
        unit=bits + header.extent,
        limit=source.size,
        flags=[DATA | DIVIDED],
        special=[(0xFFFFFFFF, ZERO)],
        width=4,
    )
    table = place.table_at(header.header, "catalog")
    map = Map(table, source, rule, header.extent, 4, OneTable(header.header, 4))
    size = header.disk // SECTOR * SECTOR
    return DividedLayer(map, size, header, bitmap=bitmap, big=False, clear=ZERO, budget=budget)
