"""ELF dumps of guest memory, as QEMU's ``dump-guest-memory`` writes them (dump/dump.c)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

from pyvirt.errors import ImageError

PT_LOAD = 1
_PN_XNUM = 0xFFFF  # the number of segments is in sh_info of the first section (elf(5))
_MOST = 1 << 20  # segments; QEMU writes one for each piece of guest memory

# Header: e_phoff, e_shoff, then e_phentsize and e_phnum; segment: p_offset, p_paddr, p_filesz.
# The second is sh_info of a section.
_WIDE = ("<32xQQ6xHH", "<44xI", struct.Struct("<I4xQ8xQQ16x"))
_NARROW = ("<28xII6xHH", "<28xI", struct.Struct("<II4xII12x"))


def segments(fd: int, path: Any) -> list[tuple[int, int, int]]:
    """Guest address, size and place in the file of each piece that the dump has.

    With paging on, one page can be in several; it counts once.
    """
    size = os.fstat(fd).st_size
    pieces = sorted(_loads(fd, path))
    for guest, length, offset in pieces:
        if offset + length > size or guest + length > 1 << 64:
            raise ImageError(path, "is truncated", format="elf", table="segments", offset=offset)
    return list(_disjoint(pieces))


def _disjoint(pieces: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    end = 0
    for guest, length, offset in pieces:
        skipped = min(max(0, end - guest), length)
        if skipped < length:
            yield guest + skipped, length - skipped, offset + skipped
        end = max(end, guest + length)


def _loads(fd: int, path: Any) -> Iterator[tuple[int, int, int]]:
    head = os.pread(fd, 64, 0)
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] != 1:
        raise ImageError(path, "is no little-endian ELF dump of guest memory", format="elf")
    wide = head[4] == 2
    header, section, segment = _WIDE if wide else _NARROW
    place, sections, size, count = struct.unpack_from(header, head.ljust(64, b"\0"))
    if count == _PN_XNUM:
        count = _number(fd, path, sections, section)
    if count > _MOST or size < segment.size:
        raise ImageError(path, "has an impossible table", format="elf", table="segments",
                         offset=place, found=count)  # fmt: skip
    table = os.pread(fd, count * size, place) if place < 1 << 63 else b""
    if len(table) < count * size:
        raise ImageError(path, "is truncated", format="elf", table="segments", offset=place)
    for at in range(0, count * size, size):
        kind, offset, guest, length = segment.unpack_from(table, at)
        if kind == PT_LOAD and length:
            yield guest, length, offset


def _number(fd: int, path: Any, place: int, section: str) -> int:
    room = struct.calcsize(section)
    found = os.pread(fd, room, place) if place < 1 << 63 else b""
    if len(found) < room:
        raise ImageError(path, "is truncated", format="elf", table="sections", offset=place)
    number: int = struct.unpack(section, found)[0]
    return number
