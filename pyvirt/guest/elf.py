"""Reads of an ELF file what is needed to run it elsewhere: interpreter, libraries, sections.

Only 64-bit little-endian files, as both the host and the default guest are x86-64. Layout:
System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from attrs import field, frozen

from pyvirt.errors import ProtocolError

_IDENT = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<qQ")
_NOTE = struct.Struct("<III")

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 15, 29
_SHT_NOBITS = 8


@frozen
class Segment:
    """A program header: `size` bytes at `offset` of the file, mapped at `address`."""

    type: int
    offset: int
    address: int
    size: int


@frozen
class Elf:
    """An ELF file, and what its headers say."""

    data: bytes = field(repr=False)
    segments: tuple[Segment, ...] = field(repr=False)
    sections: dict[str, tuple[int, int]] = field(repr=False)
    interpreter: str | None
    needed: tuple[str, ...]
    search: tuple[str, ...]
    """RUNPATH, or else RPATH: directories to search, `$ORIGIN` not yet replaced."""

    def section(self, name: str) -> bytes:
        """The contents of section *name*; empty when the file has none."""
        offset, size = self.sections.get(name, (0, 0))
        return self.data[offset : offset + size]

    def notes(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Owner, type and description of every note."""
        for segment in self.segments:
            if segment.type == _PT_NOTE:
                yield from _notes(self.data[segment.offset : segment.offset + segment.size])


def is_elf(data: bytes) -> bool:
    """Whether *data* begins as a 64-bit little-endian ELF file does."""
    return data.startswith(_IDENT)


def read(data: bytes, name: str = "the file") -> Elf:
    """What the headers of ELF file *data* say; *name* is for the error."""
    try:
        return _read(data)
    except (struct.error, ValueError, OverflowError) as error:
        raise ProtocolError(name, f"is not a whole 64-bit ELF file ({error})", 0) from None


def _read(data: bytes) -> Elf:
    if not is_elf(data):
        raise ValueError("wrong magic number")
    *_, phoff, shoff, _flags, _size, phsize, phnum, shsize, shnum, shstr = _HEADER.unpack_from(data)
    segments = tuple(_segments(data, phoff, phsize, phnum))
    dynamic = _dynamic(data, segments)
    strings = _string_table(data, segments, dynamic)
    text = {tag: [_string(strings, at) for t, at in dynamic if t == tag] for tag in _TEXT_TAGS}
    interpreter = [s for s in segments if s.type == _PT_INTERP]
    return Elf(
        data,
        segments,
        dict(_sections(data, shoff, shsize, shnum, shstr)),
        _string(data, interpreter[0].offset) if interpreter else None,
        tuple(text[_DT_NEEDED]),
        tuple(_paths(text[_DT_RUNPATH] or text[_DT_RPATH])),
    )


_TEXT_TAGS = (_DT_NEEDED, _DT_RPATH, _DT_RUNPATH)


def _segments(data: bytes, offset: int, size: int, count: int) -> Iterator[Segment]:
    for index in range(count):
        kind, _, at, address, _, length, _, _ = _SEGMENT.unpack_from(data, offset + index * size)
        if kind != _PT_LOAD and at + length > len(data):
            raise ValueError(f"segment {index} reaches beyond the end")
        yield Segment(kind, at, address, length)


def _sections(
    data: bytes, offset: int, size: int, count: int, names: int
) -> Iterator[tuple[str, tuple[int, int]]]:
    if not offset:
        return
    headers = [_SECTION.unpack_from(data, offset + index * size) for index in range(count)]
    if names >= len(headers):
        return
    strings = headers[names][4]
    for name, kind, _, _, at, length, *_ in headers:
        if kind != _SHT_NOBITS:
            yield _string(data, strings + name), (at, length)


def _dynamic(data: bytes, segments: tuple[Segment, ...]) -> list[tuple[int, int]]:
    found = []
    for segment in segments:
        if segment.type == _PT_DYNAMIC:
            table = data[segment.offset : segment.offset + segment.size]
            found += list(_DYNAMIC.iter_unpack(table[: len(table) // 16 * 16]))
    end = next((i for i, (tag, _) in enumerate(found) if tag == 0), len(found))
    return found[:end]


def _string_table(
    data: bytes, segments: tuple[Segment, ...], dynamic: list[tuple[int, int]]
) -> bytes:
    values = dict(dynamic)
    address, size = values.get(_DT_STRTAB, 0), values.get(_DT_STRSZ, 0)
    for segment in segments:
        start = address - segment.address
        if segment.type == _PT_LOAD and 0 <= start < segment.size:
            return data[segment.offset + start :][:size]
    return b""


def _notes(table: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    at = 0
    while at + _NOTE.size <= len(table):
        owner, size, kind = _NOTE.unpack_from(table, at)
        at += _NOTE.size
        text = at + -(-owner // 4) * 4
        yield table[at : at + owner].rstrip(b"\0"), kind, table[text : text + size]
        at = text + -(-size // 4) * 4


def _string(table: bytes, at: int) -> str:
    end = table.index(b"\0", at)
    return table[at:end].decode("utf-8", "surrogateescape")


def _paths(texts: list[str]) -> Iterator[str]:
    for text in texts:
        yield from filter(None, text.split(":"))
