"""VHD images: fixed, dynamic and differencing. QEMU calls the format vpc.

Source: Microsoft's "Virtual Hard Disk Image Format Specification" of 2006. The footer ends the
file; dynamic and differencing images have a copy of it at the beginning.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from attrs import evolve, frozen

from pyvirt._native.blocks import Rule
from pyvirt.image.budget import Budget
from pyvirt.image.formats.blocks import (
    ABSENT,
    DATA,
    DIVIDED,
    SECTOR,
    ZERO,
    Bitmap,
    BlockLayer,
    DividedLayer,
    Map,
    OneTable,
)
from pyvirt.image.formats.flat import FlatLayer
from pyvirt.image.formats.parent import posix
from pyvirt.image.layer import Layer, Match, Reference, Siblings
from pyvirt.image.source import Source, exactly, name_of
from pyvirt.image.structure import Fault, Place, at, divided, power_of_two

COOKIE, SPARSE = b"conectix", b"cxsparse"
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
FOOTER = 512
_FREE = 0xFFFFFFFF
_NO_OFFSET = 0xFFFFFFFFFFFFFFFF
# The largest geometry there is: bigger disks have it too.
_MOST_CHS = 65535 * 16 * 255
# Who writes the true size into `current_size`; for others the geometry counts, as in QEMU.
_TRUE_SIZE = (b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0")


def _uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=data)


@frozen
class ParentLocator:
    """Where the parent may be: `platform_data_length` bytes, as `platform_code` writes names."""

    platform_code: bytes = at(0, "4s")
    platform_data_space: int = at(4, "I")
    platform_data_length: int = at(8, "I")
    platform_data_offset: int = at(16, "Q")


@frozen
class DynamicHeader:
    """The dynamic disk header; sizes and offsets in bytes, times in seconds since 2000."""

    cookie: bytes = at(0, "8s")
    data_offset: int = at(8, "Q")
    table_offset: int = at(16, "Q")
    header_version: int = at(24, "I")
    max_table_entries: int = at(28, "I")
    block_size: int = at(32, "I")
    checksum: int = at(36, "I")
    parent_unique_id: uuid.UUID = at(40, "16s", _uuid)
    parent_time_stamp: int = at(56, "I")
    parent_unicode_name: str = at(
        64, "512s", lambda name: name.decode("utf-16-be", "replace").partition("\0")[0]
    )


@frozen
class Footer:
    """The hard disk footer; sizes and offsets in bytes, times in seconds since 2000."""

    cookie: bytes = at(0, "8s")
    features: int = at(8, "I")
    file_format_version: int = at(12, "I")
    data_offset: int = at(16, "Q")
    time_stamp: int = at(24, "I")
    creator_application: bytes = at(28, "4s")
    creator_version: int = at(32, "I")
    creator_host_os: bytes = at(36, "4s")
    original_size: int = at(40, "Q")
    current_size: int = at(48, "Q")
    cylinders: int = at(56, "H")
    heads: int = at(58, "B")
    sectors_per_track: int = at(59, "B")
    disk_type: int = at(60, "I")
    checksum: int = at(64, "I")
    unique_id: uuid.UUID = at(68, "16s", _uuid)
    saved_state: int = at(84, "B")

    @property
    def size(self) -> int:
        """Bytes that a guest sees, as QEMU decides it."""
        chs = self.cylinders * self.heads * self.sectors_per_track
        if self.creator_application in _TRUE_SIZE or chs == _MOST_CHS:
            return self.current_size // SECTOR * SECTOR
        return chs * SECTOR


@frozen
class Info:
    """What the image says of itself; `header` is None for a fixed disk."""

    footer: Footer
    header: DynamicHeader | None = None
    parent_locators: tuple[ParentLocator, ...] = ()
    #: The footer was broken or missing, and its copy at the beginning was taken.
    footer_from_copy: bool = False


def checksum(data: bytes, field: int) -> int:
    """The complement of the sum of all bytes but those of the checksum at `field`."""
    return ~(sum(data) - sum(data[field : field + 4])) & 0xFFFFFFFF


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    if head.startswith(COOKIE):
        return Match("vpc", 98, "begins with a copy of a footer: 'conectix'")
    if size >= FOOTER and tail[-FOOTER:].startswith(COOKIE):
        good = checksum(tail[-FOOTER:], 64).to_bytes(4, "big") == tail[-FOOTER:][64:68]
        reason = "ends in a footer: 'conectix'" + (" with its checksum" if good else "")
        return Match("vpc", 80 if good else 30, reason)
    return None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> Layer:
    place = Place(name_of(source), "vpc", "footer", max(0, source.size - FOOTER))
    info = _footer(place, source)
    place.check(info.footer, _footer_faults(info.footer, source.size))
    if info.footer.disk_type == FIXED:
        return FlatLayer("vpc", source, info.footer.size, info, budget, str(info.footer.unique_id))
    return _sparse(place, source, info, budget)


def _footer(place: Place, source: Source) -> Info:
    """The footer, or its copy where it is broken."""
    for start, copy in ((place.offset, False), (0, True)):
        data = exactly(source, FOOTER, start, "footer")
        if data.startswith(COOKIE) and checksum(data, 64) == int.from_bytes(data[64:68], "big"):
            return Info(place.table_at(start).read(Footer, source, ">"), footer_from_copy=copy)
    raise place.error("has no footer with its checksum, and no copy of one")


def _footer_faults(footer: Footer, size: int) -> Iterator[Fault]:
    if footer.file_format_version >> 16 != 1:
        yield "file_format_version", "1.x"
    if not FIXED <= footer.disk_type <= DIFFERENCING:
        yield "disk_type", "2 (fixed), 3 (dynamic) or 4 (differencing)"
    elif footer.disk_type == FIXED:
        if footer.size > size - FOOTER:
            yield "current_size", f"at most {size - FOOTER}"
    elif footer.data_offset % SECTOR or not SECTOR <= footer.data_offset <= size - 1024:
        yield "data_offset", "a sector of the file"
    if footer.size > 2040 << 30:
        yield "current_size", f"at most {2040 << 30} (2040 GiB)"


def _header_faults(header: DynamicHeader, footer: Footer, size: int) -> Iterator[Fault]:
    if header.cookie != SPARSE:
        yield "cookie", repr(SPARSE)
    if header.header_version >> 16 != 1:
        yield "header_version", "1.x"
    if not power_of_two(header.block_size) or header.block_size < SECTOR:
        yield "block_size", "a power of two from 512"
    if header.table_offset < SECTOR or header.table_offset + 4 * header.max_table_entries > size:
        yield "table_offset", f"{4 * header.max_table_entries} bytes inside the file"
    if header.max_table_entries * header.block_size < footer.size:
        yield "max_table_entries", f"at least {divided(footer.size, header.block_size)}"


def _sparse(place: Place, source: Source, info: Info, budget: Budget) -> BlockLayer:
    footer = info.footer
    place = place.table_at(footer.data_offset, "dynamic disk header")
    data = exactly(source, 1024, place.offset, place.table)
    header = place.read(DynamicHeader, source, ">")
    place.check(header, _header_faults(header, footer, source.size))
    if checksum(data, 36) != header.checksum:
        raise place.wrong(header, "checksum", str(checksum(data, 36)))
    info = evolve(info, header=header, parent_locators=tuple(_locators(place, source)))
    if footer.disk_type == DYNAMIC:
        return BlockLayer(
            _map(place, source, header, DATA, ZERO),
            footer.size,
            info,
            budget=budget,
            identity=str(footer.unique_id),
        )
    return _differencing(place, source, info, header, budget)


def _map(place: Place, source: Source, header: DynamicHeader, flags: int, missing: int) -> Map:
    """Entries count sectors, up to a bitmap of the block's sectors; the data is behind it."""
    rule = Rule(
        block=header.block_size,
        base=0 if flags & DIVIDED else _bitmap_size(header),
        unit=SECTOR,
        limit=source.size,
        flags=[flags],
        special=[(_FREE, missing)],
        width=4,
        big=True,
    )
    table = place.table_at(header.table_offset, "BAT")
    return Map(table, source, rule, header.block_size, 4, OneTable(header.table_offset, 4))


def _bitmap_size(header: DynamicHeader) -> int:
    return divided(header.block_size // SECTOR, 8 * SECTOR) * SECTOR


def _differencing(
    place: Place, source: Source, info: Info, header: DynamicHeader, budget: Budget
) -> DividedLayer:
    size = _bitmap_size(header)

    def bitmap(start: int, host: int) -> Bitmap:
        return Bitmap(exactly(source, size, host, "sector bitmap"), host + size)

    return DividedLayer(
        _map(place, source, header, DATA | DIVIDED, ABSENT),
        info.footer.size,
        info,
        bitmap=bitmap,
        big=True,
        budget=budget,
        references=tuple(_parents(source, info, header)),
        identity=str(info.footer.unique_id),
        parent_identity=str(header.parent_unique_id),
    )


def _locators(place: Place, source: Source) -> Iterator[ParentLocator]:
    for number in range(8):
        entry = place.table_at(place.offset + 576 + 24 * number, "parent locators")
        locator = entry.read(ParentLocator, source, ">")
        if locator.platform_code.strip(b"\0"):
            end = locator.platform_data_offset + locator.platform_data_length
            if locator.platform_data_length > 65536 or end > source.size:
                raise entry.wrong(locator, "platform_data_length", "at most 64 KiB of the file")
            yield locator


def _parents(source: Source, info: Info, header: DynamicHeader) -> Iterator[Reference]:
    """The parent's names, the relative one first, since it survives moving both files."""
    order = {b"W2ru": 0, b"MacX": 1, b"W2ku": 2}
    known = [one for one in info.parent_locators if one.platform_code in order]
    for one in sorted(known, key=lambda one: order[one.platform_code]):
        data = exactly(source, one.platform_data_length, one.platform_data_offset, "locator")
        text = data.decode("utf-8" if one.platform_code == b"MacX" else "utf-16-le", "replace")
        name = text.rstrip("\0")
        yield Reference("backing", posix(name) if one.platform_code == b"W2ru" else name, "vpc")
    if header.parent_unicode_name:
        yield Reference("backing", header.parent_unicode_name, "vpc")
