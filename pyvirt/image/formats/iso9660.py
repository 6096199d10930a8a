"""ISO 9660 images: raw bytes for a guest, with volume descriptors from sector 16 on.

Source: ECMA-119. Numbers are stored in both byte orders; the little-endian ones are read.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from pyvirt.image.budget import Budget
from pyvirt.image.formats.flat import FlatLayer
from pyvirt.image.layer import Match, Siblings
from pyvirt.image.source import Source, name_of
from pyvirt.image.structure import Fault, Place, at, divided, parse

SECTOR = 2048
IDENTIFIER = b"CD001"
_FIRST, _MOST = 16, 64  # volume descriptors begin here, and are rarely more than five
_BOOT, _PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 0, 1, 2, 255
_KINDS = {
    _BOOT: "boot record",
    _PRIMARY: "primary",
    _SUPPLEMENTARY: "supplementary",
    3: "partition",
}


def _padded(data: bytes) -> str:
    return data.decode("ascii", "replace").rstrip(" \0")


@frozen
class PrimaryVolumeDescriptor:
    """The primary volume descriptor; `volume_space_size` in logical blocks."""

    type: int = at(0, "B")
    standard_identifier: bytes = at(1, "5s")
    version: int = at(6, "B")
    system_identifier: str = at(8, "32s", _padded)
    volume_identifier: str = at(40, "32s", _padded)
    volume_space_size: int = at(80, "I")
    volume_set_size: int = at(120, "H")
    volume_sequence_number: int = at(124, "H")
    logical_block_size: int = at(128, "H")
    path_table_size: int = at(132, "I")
    volume_set_identifier: str = at(190, "128s", _padded)
    publisher_identifier: str = at(318, "128s", _padded)
    data_preparer_identifier: str = at(446, "128s", _padded)
    application_identifier: str = at(574, "128s", _padded)
    creation: str = at(813, "17s", _padded)
    modification: str = at(830, "17s", _padded)


@frozen
class Info:
    """The primary volume descriptor, and what else is there."""

    primary: PrimaryVolumeDescriptor
    descriptors: tuple[str, ...]
    #: Names in UCS-2 as well.
    joliet: bool
    #: A PC's firmware can boot it.
    el_torito: bool


def _faults(primary: PrimaryVolumeDescriptor, size: int) -> Iterator[Fault]:
    if primary.version != 1:
        yield "version", "1"
    if primary.logical_block_size not in (512, 1024, 2048):
        yield "logical_block_size", "512, 1024 or 2048"
    end = primary.volume_space_size * primary.logical_block_size
    if end > divided(size, SECTOR) * SECTOR:
        yield "volume_space_size", f"at most {size // SECTOR} blocks of {SECTOR}"


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    start = _FIRST * SECTOR
    if head[start + 1 : start + 6] == IDENTIFIER and head[start] in (*_KINDS, _TERMINATOR):
        return Match("iso9660", 70, "has a volume descriptor in sector 16: 'CD001'")
    return None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> FlatLayer:
    place = Place(name_of(source), "iso9660", "volume descriptors", _FIRST * SECTOR)
    found = list(_descriptors(place, source))
    for number, data in enumerate(found):
        if data[0] == _PRIMARY:
            here = place.table_at((_FIRST + number) * SECTOR, "primary volume descriptor")
            primary = parse(PrimaryVolumeDescriptor, data, "<")
            here.check(primary, _faults(primary, source.size))
            return FlatLayer("iso9660", source, source.size, _info(primary, found), budget)
    raise place.error("lacks a primary volume descriptor")


def _descriptors(place: Place, source: Source) -> Iterator[bytes]:
    for number in range(_FIRST, _FIRST + _MOST):
        data = source.pread(SECTOR, number * SECTOR)
        if len(data) < SECTOR or data[1:6] != IDENTIFIER:
            raise place.error("do not end in a terminator", number * SECTOR, found=data[:7])
        if data[0] == _TERMINATOR:
            return
        yield data
    raise place.error(f"are more than {_MOST}")


def _info(primary: PrimaryVolumeDescriptor, found: list[bytes]) -> Info:
    return Info(
        primary,
        tuple(_KINDS.get(data[0], f"type {data[0]}") for data in found),
        joliet=any(d[0] == _SUPPLEMENTARY and d[88:91] in (b"%/@", b"%/C", b"%/E") for d in found),
        el_torito=any(d[0] == _BOOT and d[7:39].startswith(b"EL TORITO SPEC") for d in found),
    )
