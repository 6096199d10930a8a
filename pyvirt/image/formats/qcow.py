"""QCOW images of version 1: two levels of tables, zlib and AES. Source: QEMU's block/qcow.c."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from pyvirt._native.blocks import Rule
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Flag
from pyvirt.image.formats.blocks import ABSENT, DATA, PACKED, BlockLayer, Directory, Map
from pyvirt.image.formats.unpack import raw_deflate
from pyvirt.image.layer import Match, Reference, Siblings
from pyvirt.image.source import Source, exactly, name_of
from pyvirt.image.structure import Fault, Place, at, divided

MAGIC = b"QFI\xfb"
SECTOR = 512
AES = 1


@frozen
class Header:
    """The header; `size` in bytes, `mtime` in seconds since 1970."""

    magic: bytes = at(0, "4s")
    version: int = at(4, "I")
    backing_file_offset: int = at(8, "Q")
    backing_file_size: int = at(16, "I")
    mtime: int = at(20, "I")
    size: int = at(24, "Q")
    cluster_bits: int = at(32, "B")
    l2_bits: int = at(33, "B")
    crypt_method: int = at(36, "I")
    l1_table_offset: int = at(40, "Q")

    @property
    def encrypted(self) -> bool:
        """Clusters are encrypted with AES-128-CBC, sector by sector."""
        return self.crypt_method == AES

    @property
    def l1_size(self) -> int:
        """Entries in the L1 table."""
        return divided(self.size, 1 << self.cluster_bits + self.l2_bits)


def _faults(header: Header, size: int) -> Iterator[Fault]:
    if (header.magic, header.version) != (MAGIC, 1):
        yield "version", "1 behind QFI\\xfb"
    if not 9 <= header.cluster_bits <= 16:
        yield "cluster_bits", "9 to 16"
    if not 6 <= header.l2_bits <= 13:
        yield "l2_bits", "6 to 13"
    if not 2 <= header.size < 1 << 63:
        yield "size", "2 bytes to 2^63"
    if header.crypt_method not in (0, AES):
        yield "crypt_method", "0 (none) or 1 (AES)"
    if not 48 <= header.l1_table_offset <= size - 8 * header.l1_size:
        yield "l1_table_offset", f"{8 * header.l1_size} bytes behind the header"
    if header.backing_file_offset and not 0 < header.backing_file_size <= 1023:
        yield "backing_file_size", "1 to 1023"


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    if head.startswith(MAGIC + bytes([0, 0, 0, 1])):
        return Match("qcow", 100, "begins with 'QFI\\xfb' and version 1")
    return None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> BlockLayer:
    place = Place(name_of(source), "qcow", "header")
    header = place.read(Header, source, ">")
    place.check(header, _faults(header, source.size))
    entries, cluster = 1 << header.l2_bits, 1 << header.cluster_bits
    l1 = Rule(block=entries * 8, limit=source.size, flags=[DATA], special=[(0, ABSENT)], big=True)
    directory = Directory(
        place.table_at(0, "L1 table"), source, header.l1_table_offset, 8, l1, entries, 8
    )
    l2 = _clusters(header, source.size)
    map = Map(place.table_at(0, "L2 table"), source, l2, cluster, 8, directory)
    return BlockLayer(
        map,
        header.size // SECTOR * SECTOR,
        header,
        budget=budget,
        references=_references(header, source),
        inflate=raw_deflate,
    )


def _clusters(header: Header, size: int) -> Rule:
    """Bit 63 says compressed: the size stored is then in the bits above the offset."""
    hidden = int(Flag.ENCRYPTED) if header.encrypted else 0
    return Rule(
        block=1 << header.cluster_bits,
        limit=size,
        flags=[DATA | hidden, PACKED],
        special=[(0, ABSENT)],
        state_shift=63,
        state_mask=1,
        reserved=SECTOR - 1,
        packed=63 - header.cluster_bits,
        packed_bits=header.cluster_bits,
        big=True,
    )


def _references(header: Header, source: Source) -> tuple[Reference, ...]:
    if not header.backing_file_offset:
        return ()
    size, offset = header.backing_file_size, header.backing_file_offset
    name = exactly(source, size, offset, "backing file name")
    return (Reference("backing", name.decode("utf-8", "surrogateescape")),)
