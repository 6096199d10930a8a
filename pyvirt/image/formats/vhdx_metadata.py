"""The metadata region of VHDX images: what the disk is, and where its parent may be.

Source: Microsoft's [MS-VHDX] 2.6.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping

from attrs import frozen

from pyvirt.errors import FeatureError
from pyvirt.image.formats.vhdx_header import MIB, Region
from pyvirt.image.source import Source, exactly
from pyvirt.image.structure import Fault, Place, at, divided, guid, parse, power_of_two

TABLE = 64 << 10
FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
VIRTUAL_DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
VIRTUAL_DISK_ID = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
LOGICAL_SECTOR_SIZE = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL_SECTOR_SIZE = uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556")
PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
VHDX_PARENT = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")
_SIZES = {
    FILE_PARAMETERS: 8,
    VIRTUAL_DISK_SIZE: 8,
    VIRTUAL_DISK_ID: 16,
    LOGICAL_SECTOR_SIZE: 4,
    PHYSICAL_SECTOR_SIZE: 4,
}
_REQUIRED = 4


@frozen
class Metadata:
    """What the metadata items say; sizes in bytes."""

    block_size: int
    leave_blocks_allocated: bool
    has_parent: bool
    virtual_disk_size: int
    virtual_disk_id: uuid.UUID
    logical_sector_size: int
    physical_sector_size: int
    #: Keys and values: parent_linkage, relative_path, absolute_win32_path...
    parent_locator: Mapping[str, str]

    @property
    def chunk_ratio(self) -> int:
        """Blocks that share one sector bitmap."""
        return (1 << 23) * self.logical_sector_size // self.block_size

    @property
    def blocks(self) -> int:
        return divided(self.virtual_disk_size, self.block_size)

    @property
    def bat_entries(self) -> int:
        """Entries of blocks and, behind each chunk of them, of a sector bitmap."""
        if self.has_parent:
            return divided(self.blocks, self.chunk_ratio) * (self.chunk_ratio + 1)
        return self.blocks + max(0, self.blocks - 1) // self.chunk_ratio


@frozen
class _TableHeader:
    signature: bytes = at(0, "8s")
    entry_count: int = at(10, "H")


@frozen
class _Item:
    item_id: uuid.UUID = at(0, "16s", guid)
    offset: int = at(16, "I")
    length: int = at(20, "I")
    flags: int = at(24, "I")


@frozen
class _Locator:
    locator_type: uuid.UUID = at(0, "16s", guid)
    key_value_count: int = at(18, "H")


@frozen
class _Pair:
    key_offset: int = at(0, "I")
    value_offset: int = at(4, "I")
    key_length: int = at(8, "H")
    value_length: int = at(10, "H")


def metadata(place: Place, source: Source, region: Region) -> Metadata:
    """The metadata of an image whose log has been replayed."""
    place = place.table_at(region.file_offset, "metadata table")
    items = _items(place, source, region)
    flags = _number(items[FILE_PARAMETERS][4:])
    has_parent = bool(flags & 2)
    if has_parent and PARENT_LOCATOR not in items:
        raise place.error("lacks an item", expected=PARENT_LOCATOR)
    result = Metadata(
        block_size=_number(items[FILE_PARAMETERS][:4]),
        leave_blocks_allocated=bool(flags & 1),
        has_parent=has_parent,
        virtual_disk_size=_number(items[VIRTUAL_DISK_SIZE][:8]),
        virtual_disk_id=guid(items[VIRTUAL_DISK_ID][:16]),
        logical_sector_size=_number(items[LOGICAL_SECTOR_SIZE][:4]),
        physical_sector_size=_number(items[PHYSICAL_SECTOR_SIZE][:4]),
        parent_locator=_locator(place, items[PARENT_LOCATOR]) if has_parent else {},
    )
    for field, expected in _faults(result):
        raise place.error(f"has a wrong {field}", found=getattr(result, field), expected=expected)
    return result


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _faults(one: Metadata) -> Iterator[Fault]:
    if not power_of_two(one.block_size) or not MIB <= one.block_size <= 256 * MIB:
        yield "block_size", "a power of two from 1 MiB to 256 MiB"
    if one.logical_sector_size not in (512, 4096):
        yield "logical_sector_size", "512 or 4096"
    if one.physical_sector_size not in (512, 4096):
        yield "physical_sector_size", "512 or 4096"
    if one.virtual_disk_size > 64 << 40 or one.virtual_disk_size % one.logical_sector_size:
        yield "virtual_disk_size", "whole sectors, at most 64 TiB"


def _items(place: Place, source: Source, region: Region) -> dict[uuid.UUID, bytes]:
    """The contents of all items that are known."""
    table = exactly(source, min(TABLE, region.length), region.file_offset, place.table)
    if len(table) < TABLE:
        raise place.error("is too short", found=region.length, expected=MIB)
    header = parse(_TableHeader, table, "<")
    if header.signature != b"metadata":
        raise place.wrong(header, "signature", "metadata")
    if header.entry_count > 2047:
        raise place.wrong(header, "entry_count", "at most 2047")
    items: dict[uuid.UUID, bytes] = {}
    for number in range(header.entry_count):
        entry = place.table_at(region.file_offset + 32 + 32 * number)
        item = parse(_Item, table, "<", 32 + 32 * number)
        if item.item_id in items:
            raise entry.wrong(item, "item_id", "each item once")
        if (content := _content(entry, source, region, item)) is not None:
            items[item.item_id] = content
    for needed in _SIZES:
        if needed not in items:
            raise place.error("lacks an item", expected=needed)
    return items


def _content(place: Place, source: Source, region: Region, item: _Item) -> bytes | None:
    """The bytes of an item; None if it is one to skip."""
    least = _SIZES.get(item.item_id, 20 if item.item_id == PARENT_LOCATOR else None)
    if least is None:
        if item.flags & _REQUIRED:
            raise FeatureError(place.path, "vhdx", (f"metadata item {item.item_id}",))
        return None
    if not least <= item.length <= MIB:
        raise place.wrong(item, "length", f"{least} bytes to 1 MiB")
    if item.offset < TABLE or item.offset + item.length > region.length:
        raise place.wrong(item, "offset", "behind the table and inside the region")
    return exactly(source, item.length, region.file_offset + item.offset, place.table)


def _locator(place: Place, data: bytes) -> dict[str, str]:
    """The keys and values of the parent locator."""
    place = place.table_at(place.offset, "parent locator")
    head = parse(_Locator, data, "<")
    if head.locator_type != VHDX_PARENT:
        raise FeatureError(place.path, "vhdx", (f"parent locator {head.locator_type}",))
    if 20 + 12 * head.key_value_count > len(data):
        raise place.error("is too short", found=len(data))
    pairs: dict[str, str] = {}
    for number in range(head.key_value_count):
        one = parse(_Pair, data, "<", 20 + 12 * number)
        key = _string(place, data, one.key_offset, one.key_length)
        pairs[key] = _string(place, data, one.value_offset, one.value_length)
    return pairs


def _string(place: Place, data: bytes, offset: int, length: int) -> str:
    if offset + length > len(data):
        raise place.error("has a name beyond its end", found=offset)
    return data[offset : offset + length].decode("utf-16-le", "replace")
