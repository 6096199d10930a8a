"""DMG images of macOS (UDIF): a trailer, and chunks that are raw, zeros or compressed.

Source: QEMU's block/dmg.c and "Demystifying the DMG File Format". The chunks are in block
tables ("mish"), these in a property list as base64, or in an older resource fork.
"""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter

from attrs import frozen

from pyvirt._native.columns import Columns
from pyvirt.errors import BudgetError, FeatureError
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Extents
from pyvirt.image.formats.blocks import DATA, PACKED, ZERO
from pyvirt.image.formats.unpack import adc, bzip2_stream, xz_stream, zlib_stream
from pyvirt.image.layer import Match, Reference, Shown, Siblings
from pyvirt.image.source import Source, exactly, name_of
from pyvirt.image.structure import Fault, Place, at, parse

SECTOR, TRAILER = 512, 512
MAGIC, MISH = b"koly", b"mish"
_ZEROS, _RAW, _IGNORE = 0, 1, 2
_ADC, _ZLIB, _BZIP2, _LZFSE, _LZMA = range(0x80000004, 0x80000009)
_COMMENT, _END = 0x7FFFFFFE, 0xFFFFFFFF
_UNPACK = {_ADC: adc, _ZLIB: zlib_stream, _BZIP2: bzip2_stream, _LZMA: xz_stream}
_CHUNK, _CHUNKS = 40, 204
_MOST = 64 << 20  # bytes of a compressed chunk, packed or not
_MOST_TABLES = 32 << 20
_DATA = re.compile(rb"<data>([^<]*)</data>")


@frozen
class Trailer:
    """The trailer, `koly`; offsets and lengths in bytes."""

    magic: bytes = at(0, "4s")
    version: int = at(4, "I")
    header_size: int = at(8, "I")
    flags: int = at(12, "I")
    running_data_fork_offset: int = at(16, "Q")
    data_fork_offset: int = at(24, "Q")
    data_fork_length: int = at(32, "Q")
    rsrc_fork_offset: int = at(40, "Q")
    rsrc_fork_length: int = at(48, "Q")
    segment_number: int = at(56, "I")
    segment_count: int = at(60, "I")
    xml_offset: int = at(216, "Q")
    xml_length: int = at(224, "Q")
    image_variant: int = at(488, "I")
    sector_count: int = at(492, "Q")


@frozen
class _Table:
    magic: bytes = at(0, "4s")
    version: int = at(4, "I")
    sector_number: int = at(8, "Q")
    sector_count: int = at(16, "Q")
    data_offset: int = at(24, "Q")
    chunks: int = at(200, "I")


@frozen
class _Entry:
    type: int = at(0, "I")
    comment: int = at(4, "I")
    sector_number: int = at(8, "Q")
    sector_count: int = at(16, "Q")
    compressed_offset: int = at(24, "Q")
    compressed_length: int = at(32, "Q")


@frozen
class Chunk:
    """`length` bytes of the disk from `start` on, and the `stored` bytes at `host`."""

    type: int
    start: int
    length: int
    host: int
    stored: int

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def flags(self) -> int:
        return DATA if self.type == _RAW else PACKED if self.type in _UNPACK else ZERO


def _faults(trailer: Trailer, size: int) -> Iterator[Fault]:
    if trailer.magic != MAGIC:
        yield "magic", repr(MAGIC)
    if trailer.version != 4:
        yield "version", "4"
    if trailer.data_fork_offset + trailer.data_fork_length > size:
        yield "data_fork_length", "inside the file"
    for name in ("rsrc_fork", "xml"):
        offset, length = getattr(trailer, f"{name}_offset"), getattr(trailer, f"{name}_length")
        if length > _MOST_TABLES or offset + length > size:
            yield f"{name}_length", f"at most {_MOST_TABLES} bytes inside the file"
    if not (trailer.rsrc_fork_length or trailer.xml_length):
        yield "xml_length", "a property list, or a resource fork"
    if trailer.segment_count > 1:
        yield "segment_count", "1: images in several files are not read"
    if trailer.sector_count > 1 << 53:
        yield "sector_count", "at most 2^53"


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    if size >= TRAILER and tail[-TRAILER:].startswith(MAGIC + bytes([0, 0, 0, 4])):
        return Match("dmg", 85, "ends in a trailer: 'koly' of version 4")
    return None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> DmgLayer:
    place = Place(name_of(source), "dmg", "trailer", max(0, source.size - TRAILER))
    trailer = place.read(Trailer, source, ">")
    place.check(trailer, _faults(trailer, source.size))
    chunks = sorted(_chunks(place, source, trailer), key=attrgetter("start"))
    size, end = trailer.sector_count * SECTOR, 0
    for chunk in chunks:
        if chunk.start < end or chunk.end > size:
            raise place.table_at(0, "block table").error(
                "has chunks that overlap or are beyond the disk", chunk.host, found=chunk
            )
        end = chunk.end
    return DmgLayer(source, size, trailer, chunks, budget)


class DmgLayer(Shown):
    """The chunks of a disk, in its order."""

    format = "dmg"
    references: tuple[Reference, ...] = ()

    def __init__(
        self, source: Source, size: int, info: Trailer, chunks: list[Chunk], budget: Budget
    ) -> None:
        self.size, self.info, self.sources = size, info, (source,)
        self._chunks, self._budget = chunks, budget
        self._starts = [chunk.start for chunk in chunks]
        self._types = {chunk.type for chunk in chunks}
        packed = [chunk.length for chunk in chunks if chunk.type in _UNPACK]
        self.block = max(packed, default=SECTOR)

    def extents(self, start: int = 0, stop: int | None = None) -> Extents:
        """This layer from byte `start` to `stop`, in whole chunks."""
        stop = self.size if stop is None else min(stop, self.size)
        first = max(0, bisect_right(self._starts, start) - 1)
        chunks = self._chunks[first : bisect_right(self._starts, stop - 1)]
        chunks = [chunk for chunk in chunks if chunk.end > start]
        columns = Columns(self._budget.extents(2 * len(chunks) + 1))
        for chunk in chunks:
            if chunk.start > start:
                columns.add(start, chunk.start - start, 0, ZERO)
            columns.add(chunk.start, chunk.length, chunk.host, chunk.flags, stored=chunk.stored)
            start = chunk.end
        if start < stop:
            columns.add(start, stop - start, 0, ZERO)
        return Extents(columns)

    def inflate(self, data: bytes, size: int) -> bytes:
        """A compressed chunk; what kind it is shows in its first bytes."""
        return _UNPACK[self._kind(data)](data, size)

    def _kind(self, data: bytes) -> int:
        """A chunk of ADC begins with bytes of its own, so its first byte is 0x80 or more."""
        for kind, magic in ((_BZIP2, b"BZh"), (_LZMA, b"\xfd7zXZ\0")):
            if kind in self._types and data.startswith(magic):
                return kind
        return _ADC if _ADC in self._types and data[:1] >= b"\x80" else _ZLIB


def _chunks(place: Place, source: Source, trailer: Trailer) -> Iterator[Chunk]:
    place = place.table_at(0, "block table")
    if trailer.rsrc_fork_length:
        tables = _in_resources(place, source, trailer)
    else:
        tables = _in_property_list(place, source, trailer)
    for table in tables:
        yield from _table(place, table, trailer, source.size)


def _in_property_list(place: Place, source: Source, trailer: Trailer) -> Iterator[bytes]:
    text = exactly(source, trailer.xml_length, trailer.xml_offset, "property list")
    for found in _DATA.finditer(text):
        try:
            table = base64.b64decode(b"".join(found[1].split()), validate=True)
        except binascii.Error as error:
            offset = trailer.xml_offset + found.start()
            raise place.error("is no base64", offset, found=error) from None
        if table.startswith(MISH):
            yield table


def _in_resources(place: Place, source: Source, trailer: Trailer) -> Iterator[bytes]:
    """Resources are behind one another, a length in front of each; others are skipped."""
    fork = exactly(source, trailer.rsrc_fork_length, trailer.rsrc_fork_offset, "resource fork")
    start = int.from_bytes(fork[:4], "big")
    end = start + int.from_bytes(fork[8:12], "big")
    if not 16 <= start <= end <= len(fork):
        raise place.error("is not in a resource fork that is whole", trailer.rsrc_fork_offset)
    while start + 4 <= end:
        length = int.from_bytes(fork[start : start + 4], "big")
        if not length or start + 4 + length > end:
            raise place.error("has a wrong length", trailer.rsrc_fork_offset + start, found=length)
        if fork.startswith(MISH, start + 4):
            yield fork[start + 4 : start + 4 + length]
        start += 4 + length


def _table(place: Place, data: bytes, trailer: Trailer, size: int) -> Iterator[Chunk]:
    if len(data) < _CHUNKS:
        raise place.error("is too short", found=len(data), expected=_CHUNKS)
    table = parse(_Table, data, ">")
    if _CHUNKS + _CHUNK * table.chunks > len(data):
        raise place.wrong(table, "chunks", f"at most {(len(data) - _CHUNKS) // _CHUNK}")
    for number in range(table.chunks):
        entry = parse(_Entry, data, ">", _CHUNKS + _CHUNK * number)
        if entry.type in (_COMMENT, _END) or not entry.sector_count:
            continue
        _check(place.table_at(_CHUNKS + _CHUNK * number), entry)
        host = trailer.data_fork_offset + table.data_offset + entry.compressed_offset
        chunk = Chunk(
            type=entry.type,
            start=(table.sector_number + entry.sector_number) * SECTOR,
            length=entry.sector_count * SECTOR,
            host=0 if entry.type in (_ZEROS, _IGNORE) else host,
            stored=entry.compressed_length if entry.type in _UNPACK else 0,
        )
        needed = chunk.length if chunk.type == _RAW else chunk.stored
        if chunk.host + needed > size or chunk.end > 1 << 62:
            raise place.error("names a place beyond the end of the file", host, found=chunk)
        yield chunk


def _check(place: Place, entry: _Entry) -> None:
    """Refuse what cannot be read."""
    if entry.type == _LZFSE:
        raise FeatureError(place.path, "dmg", ("lzfse compression",))
    if entry.type not in (_ZEROS, _RAW, _IGNORE, *_UNPACK):
        raise FeatureError(place.path, "dmg", (f"chunks of type {entry.type:#x}",))
    if entry.type in _UNPACK:
        if entry.sector_count * SECTOR > _MOST:
            raise BudgetError(f"a chunk of {place.path}", entry.sector_count * SECTOR)
        if entry.compressed_length > _MOST:
            raise place.wrong(entry, "compressed_length", f"at most {_MOST}")
