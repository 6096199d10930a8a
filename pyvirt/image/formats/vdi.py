"""VDI images of VirtualBox: one table of blocks. Source: VirtualBox's VDICore.h."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from attrs import frozen

from pyvirt._native.blocks import Rule
from pyvirt.image.budget import Budget
from pyvirt.image.formats.blocks import ABSENT, DATA, ZERO, BlockLayer, Map, OneTable
from pyvirt.image.layer import Match, Reference, Siblings
from pyvirt.image.source import Source, name_of
from pyvirt.image.structure import Fault, Place, at, divided, guid, power_of_two, string

SIGNATURE = 0xBEDA107F
SECTOR = 512
DYNAMIC, STATIC, UNDO, DIFFERENCING = 1, 2, 3, 4
_FREE, _ZERO = 0xFFFFFFFF, 0xFFFFFFFE
_NIL = uuid.UUID(int=0)


@frozen
class Header:
    """The pre-header and the header of version 1.1; sizes and offsets in bytes."""

    text: str = at(0, "64s", string)
    signature: int = at(64, "I")
    version: int = at(68, "I")
    header_size: int = at(72, "I")
    image_type: int = at(76, "I")
    image_flags: int = at(80, "I")
    description: str = at(84, "256s", string)
    offset_bmap: int = at(340, "I")
    offset_data: int = at(344, "I")
    cylinders: int = at(348, "I")
    heads: int = at(352, "I")
    sectors: int = at(356, "I")
    sector_size: int = at(360, "I")
    disk_size: int = at(368, "Q")
    block_size: int = at(376, "I")
    block_extra: int = at(380, "I")
    blocks_in_image: int = at(384, "I")
    blocks_allocated: int = at(388, "I")
    uuid_image: uuid.UUID = at(392, "16s", guid)
    uuid_last_snap: uuid.UUID = at(408, "16s", guid)
    uuid_link: uuid.UUID = at(424, "16s", guid)
    uuid_parent: uuid.UUID = at(440, "16s", guid)

    @property
    def differencing(self) -> bool:
        """What this image does not have is in the image whose UUID is `uuid_link`."""
        return self.image_type in (UNDO, DIFFERENCING) or self.uuid_link != _NIL


def _faults(header: Header, size: int) -> Iterator[Fault]:
    if header.signature != SIGNATURE:
        yield "signature", hex(SIGNATURE)
    if header.version != 0x00010001:
        yield "version", "65537 (1.1)"
    if header.header_size < 0x180:
        yield "header_size", "at least 384"
    if not DYNAMIC <= header.image_type <= DIFFERENCING:
        yield "image_type", "1 to 4"
    if header.sector_size != SECTOR:
        yield "sector_size", "512"
    if not power_of_two(header.block_size) or not SECTOR <= header.block_size <= 1 << 30:
        yield "block_size", "a power of two from 512 to 1 GiB"
    if header.block_extra % SECTOR or header.block_extra > header.block_size:
        yield "block_extra", "whole sectors, at most block_size"
    yield from _table_faults(header, size)


def _table_faults(header: Header, size: int) -> Iterator[Fault]:
    end = header.offset_bmap + 4 * header.blocks_in_image
    if header.offset_bmap % SECTOR or header.offset_bmap < SECTOR or end > size:
        yield "offset_bmap", f"a sector whose {4 * header.blocks_in_image} bytes are in the file"
    if header.offset_data % SECTOR or header.offset_data < end:
        yield "offset_data", "a sector behind the block map"
    if header.disk_size > header.blocks_in_image * header.block_size:
        yield "disk_size", f"at most {header.blocks_in_image * header.block_size}"
    if header.blocks_allocated > header.blocks_in_image:
        yield "blocks_allocated", f"at most {header.blocks_in_image}"


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    if head[64:68] == SIGNATURE.to_bytes(4, "little"):
        return Match("vdi", 95, "has the signature 0xbeda107f at byte 64")
    return None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> BlockLayer:
    place = Place(name_of(source), "vdi", "header")
    header = place.read(Header, source, "<")
    place.check(header, _faults(header, source.size))
    rule = Rule(
        block=header.block_size,
        base=header.offset_data + header.block_extra,
        unit=header.block_size + header.block_extra,
        limit=source.size,
        flags=[DATA],
        special=[(_FREE, ABSENT if header.differencing else ZERO), (_ZERO, ZERO)],
        width=4,
    )
    table = place.table_at(header.offset_bmap, "block map")
    map = Map(table, source, rule, header.block_size, 4, OneTable(header.offset_bmap, 4))
    return BlockLayer(
        map,
        divided(header.disk_size, SECTOR) * SECTOR,
        header,
        budget=budget,
        references=_references(header),
        identity=str(header.uuid_image),
        parent_identity=str(header.uuid_link) if header.differencing else None,
        preallocated=header.image_type == STATIC,
    )


def _references(header: Header) -> tuple[Reference, ...]:
    """The parent is known by its UUID alone: the caller finds its file."""
    if not header.differencing:
        return ()
    return (Reference("backing", f"uuid:{header.uuid_link}", "vdi"),)
