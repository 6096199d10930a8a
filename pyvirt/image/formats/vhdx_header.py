"""The header section of VHDX images: two headers, two region tables, and checksums of all.

Source: Microsoft's [MS-VHDX]. The header with the greater sequence number counts.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from attrs import frozen

from pyvirt._native.crc32c import crc32c
from pyvirt.errors import FeatureError
from pyvirt.image.source import Source, exactly
from pyvirt.image.structure import Fault, Place, at, guid, parse

SIGNATURE = b"vhdxfile"
MIB = 1 << 20
BAT_REGION = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA_REGION = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_HEADERS, _HEADER_SIZE = (64 << 10, 128 << 10), 4096
_REGIONS, _REGION_SIZE, _MOST_REGIONS = (192 << 10, 256 << 10), 64 << 10, 2047
_NIL = uuid.UUID(int=0)


@frozen
class Header:
    """A header; offsets and sizes in bytes."""

    signature: bytes = at(0, "4s")
    checksum: int = at(4, "I")
    sequence_number: int = at(8, "Q")
    file_write_guid: uuid.UUID = at(16, "16s", guid)
    data_write_guid: uuid.UUID = at(32, "16s", guid)
    log_guid: uuid.UUID = at(48, "16s", guid)
    log_version: int = at(64, "H")
    version: int = at(66, "H")
    log_length: int = at(68, "I")
    log_offset: int = at(72, "Q")

    @property
    def has_log(self) -> bool:
        """The log may hold writes that were not finished."""
        return self.log_guid != _NIL and self.log_length > 0


@frozen
class _RegionHeader:
    signature: bytes = at(0, "4s")
    checksum: int = at(4, "I")
    entry_count: int = at(8, "I")


@frozen
class Region:
    """A part of the file; `file_offset` and `length` in bytes."""

    guid: uuid.UUID = at(0, "16s", guid)
    file_offset: int = at(16, "Q")
    length: int = at(24, "I")
    required: int = at(28, "I")


def checksum(data: bytes) -> int:
    """CRC-32C of a structure whose checksum, at byte 4, counts as zeros."""
    return crc32c(data[8:], crc32c(bytes(4), crc32c(data[:4])))


def header(place: Place, source: Source) -> Header:
    """The header that counts: the newer one of those that are whole."""
    found = [header for header in (_header(source, start) for start in _HEADERS) if header]
    if not found:
        raise place.error("has no header with its checksum", _HEADERS[0])
    best = max(found, key=lambda one: one.sequence_number)
    place = place.table_at(_HEADERS[0])
    if len({one.sequence_number for one in found}) < len({*found}):
        raise place.wrong(best, "sequence_number", "two different numbers")
    place.check(best, _faults(best, source.size))
    return best


def _header(source: Source, start: int) -> Header | None:
    data = source.pread(_HEADER_SIZE, start)
    if len(data) < _HEADER_SIZE or not data.startswith(b"head"):
        return None
    header = parse(Header, data, "<")
    return header if header.checksum == checksum(data) else None


def _faults(header: Header, size: int) -> Iterator[Fault]:
    if header.version != 1:
        yield "version", "1"
    if header.has_log and header.log_version:
        yield "log_version", "0"
    if header.log_offset % MIB or header.log_offset < MIB:
        yield "log_offset", "a multiple of 1 MiB, not 0"
    if header.log_length % MIB or header.log_offset + header.log_length > size:
        yield "log_length", "a multiple of 1 MiB inside the file"


def regions(place: Place, source: Source) -> dict[uuid.UUID, Region]:
    """The regions by what they are, from the first region table that is whole."""
    place = place.table_at(_REGIONS[0], "region table")
    for start in _REGIONS:
        data = source.pread(_REGION_SIZE, start)
        if len(data) == _REGION_SIZE and data.startswith(b"regi"):
            table = parse(_RegionHeader, data, "<")
            if table.checksum == checksum(data):
                return _regions(place.table_at(start), table, data, source.size)
    raise place.error("has no region table with its checksum")


def _regions(place: Place, table: _RegionHeader, data: bytes, size: int) -> dict[uuid.UUID, Region]:
    if table.entry_count > _MOST_REGIONS:
        raise place.wrong(table, "entry_count", f"at most {_MOST_REGIONS}")
    found: dict[uuid.UUID, Region] = {}
    end = MIB  # Regions do not overlap, so each of the sorted ones begins behind the last.
    entries = [parse(Region, data, "<", 16 + 32 * n) for n in range(table.entry_count)]
    for region in sorted(entries, key=lambda one: one.file_offset):
        place.check(region, _region_faults(region, end, size))
        end = region.file_offset + region.length
        if region.guid in found:
            raise place.error("names a region twice", found=region.guid)
        if region.required & 1 and region.guid not in (BAT_REGION, METADATA_REGION):
            raise FeatureError(place.path, "vhdx", (f"region {region.guid}",))
        found[region.guid] = region
    for needed in (BAT_REGION, METADATA_REGION):
        if needed not in found:
            raise place.error("lacks a region", expected=needed)
    return found


def _region_faults(region: Region, end: int, size: int) -> Iterator[Fault]:
    if region.file_offset % MIB or region.file_offset < end:
        yield "file_offset", f"a multiple of 1 MiB from {end} on"
    if region.length % MIB or region.file_offset + region.length > size:
        yield "length", "a multiple of 1 MiB inside the file"


def identifier(source: Source) -> str:
    """Who made the file, by the file type identifier."""
    data = exactly(source, 520, 0, "file type identifier")
    return data[8:].decode("utf-16-le", "replace").partition("\0")[0]
