"""Partition tables: GPT with its backup, MBR with extended and hybrid partitions.

A table is written by whoever had the disk. What is wrong in it becomes a `Flaw`, and every
loop ends by a number of its own.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator

from attrs import frozen

from pyvirt.image.region import MOST, Region

#: Sizes of sectors that disks have.
SECTORS = (512, 4096)
#: Logical partitions followed, and entries of a GPT read: Linux has at most 256.
MOST_LOGICAL = 256
EXTENDED, PROTECTIVE = {0x05, 0x0F, 0x85}, 0xEE
_ENTRY = struct.Struct("<B3xB3xII")
_GPT = struct.Struct("<8sIIII QQQQ 16s QIII")
_BOOT = b"\x55\xaa"


@frozen
class Flaw:
    """Something wrong: `code` is a word for programs, `offset` the byte of the disk."""

    code: str
    offset: int
    sentence: str


@frozen
class Partition:
    """A partition; `start` and `size` in bytes, `number` as Linux counts."""

    number: int
    start: int
    size: int
    #: "0x83" in an MBR, a UUID in a GPT.
    type: str
    name: str = ""
    uuid: str = ""
    #: Bit 2 of a GPT's attributes, or the boot flag of an MBR.
    bootable: bool = False
    attributes: int = 0

    @property
    def end(self) -> int:
        return self.start + self.size


@frozen
class Table:
    """A partition table: "gpt" or "mbr"."""

    kind: str
    #: Bytes of a sector, in which the table counts.
    sector: int
    #: A UUID for a GPT, the disk signature ("1a2b3c4d") for an MBR.
    id: str
    partitions: tuple[Partition, ...]
    #: The MBR's own partitions beside a GPT, if there are others than the protective one.
    hybrid: tuple[Partition, ...] = ()
    flaws: tuple[Flaw, ...] = ()


def partition_table(disk: Region) -> Table | None:
    """The table of `disk`, or None."""
    for sector in SECTORS:
        table = _gpt(disk, sector)
        if table is not None:
            return table
    return _mbr(disk)


# -- MBR -----------------------------------------------------------------------------------------


def _mbr(disk: Region) -> Table | None:
    head = disk.block(0, 512)
    if head[510:] != _BOOT or not _is_table(head):
        return None
    flaws: list[Flaw] = []
    partitions = [*_primary(disk, head, 512, flaws)]
    flaws += _misplaced(disk, partitions)
    if any(one.type == f"0x{PROTECTIVE:02x}" for one in partitions):
        flaws.append(Flaw("gpt-missing", 512, "the GPT that the boot record protects is gone"))
    return Table("mbr", 512, f"{int.from_bytes(head[440:444], 'little'):08x}",
                 tuple(partitions), flaws=tuple(flaws))  # fmt: skip


def _is_table(head: bytes) -> bool:
    """Whether the boot sector has partitions; that of a file system has code there."""
    entries = [_ENTRY.unpack_from(head, 446 + 16 * each) for each in range(4)]
    if not all(flag in (0, 0x80) for flag, *_ in entries):
        return False
    fat = head[0] in (0xEB, 0xE9) and head[11:13] in (b"\0\2", b"\0\4", b"\0\x08", b"\0\x10")
    return any(kind and size for _, kind, _, size in entries) and not (fat and head[21] >= 0xF0)


def _primary(disk: Region, head: bytes, sector: int, flaws: list[Flaw]) -> Iterator[Partition]:
    logical: list[Partition] = []
    for number in range(4):
        flag, kind, first, size = _ENTRY.unpack_from(head, 446 + 16 * number)
        if kind == 0:
            continue
        yield _partition(number + 1, flag, kind, first * sector, size * sector)
        if kind in EXTENDED:
            logical += _logical(disk, first, sector, 5 + len(logical), flaws)
    yield from logical


def _partition(number: int, flag: int, kind: int, start: int, size: int) -> Partition:
    return Partition(number, start, size, f"0x{kind:02x}", bootable=flag == 0x80)


def _logical(
    disk: Region, first: int, sector: int, number: int, flaws: list[Flaw]
) -> Iterator[Partition]:
    """Each extended boot record has one partition and the place of the next record."""
    seen: set[int] = set()
    place = first
    while True:
        offset = place * sector
        if place in seen:
            flaws.append(Flaw("ebr-loop", offset, "the extended partitions form a circle"))
            return
        if len(seen) >= MOST_LOGICAL:
            sentence = f"there are more than {MOST_LOGICAL} logical partitions"
            flaws.append(Flaw("too-many", offset, sentence))
            return
        seen.add(place)
        record = disk.block(offset, 512)
        if record[510:] != _BOOT:
            flaws.append(Flaw("ebr-missing", offset, "an extended boot record is missing"))
            return
        flag, kind, relative, size = _ENTRY.unpack_from(record, 446)
        if kind and size:
            yield _partition(number, flag, kind, offset + relative * sector, size * sector)
            number += 1
        _, kind, relative, size = _ENTRY.unpack_from(record, 462)
        if kind not in EXTENDED or not relative:
            return
        place = first + relative


# -- GPT -----------------------------------------------------------------------------------------


@frozen
class _Header:
    magic: bytes
    revision: int
    size: int
    crc: int
    reserved: int
    own: int
    other: int
    first: int
    last: int
    guid: bytes
    entries: int
    count: int
    entry: int
    entries_crc: int


def _gpt(disk: Region, sector: int) -> Table | None:
    flaws: list[Flaw] = []
    main = _header(disk, 1, sector, "primary", flaws)
    last = disk.size // sector - 1
    other = main.other if main is not None and main.other <= last else last
    backup = _header(disk, other, sector, "backup", flaws)
    chosen = main or backup
    if chosen is None:
        return None
    flaws += _compared(main, backup, sector, other)
    entries = _entries(disk, chosen, sector, flaws)
    if entries is None and chosen is main and backup is not None:
        chosen, entries = backup, _entries(disk, backup, sector, flaws)
    partitions = tuple(_gpt_partitions(entries or b"", chosen, sector))
    flaws += _misplaced(disk, partitions)
    hybrid = _hybrid(disk, sector, flaws)
    guid = str(uuid.UUID(bytes_le=chosen.guid))
    return Table("gpt", sector, guid, partitions, hybrid, tuple(flaws))


def _header(disk: Region, place: int, sector: int, which: str, flaws: list[Flaw]) -> _Header | None:
    """The header at a sector, if it is whole; if it is damaged, a flaw."""
    offset = place * sector
    data = disk.block(offset, sector) if offset > 0 else b""
    if data[:8] != b"EFI PART":
        return None
    header = _Header(*_GPT.unpack_from(data))
    if not _GPT.size <= header.size <= sector:
        flaws.append(Flaw("gpt-header", offset, f"the {which} header has no possible size"))
        return None
    if zlib.crc32(data[:16] + bytes(4) + data[20 : header.size]) != header.crc:
        flaws.append(Flaw("gpt-crc", offset, f"the {which} header has a wrong checksum"))
        return None
    if header.own != place:
        flaws.append(Flaw("gpt-place", offset, f"the {which} header is not in its place"))
        return None
    return header


def _compared(
    main: _Header | None, backup: _Header | None, sector: int, place: int
) -> Iterator[Flaw]:
    if main is None:
        yield Flaw("gpt-primary", sector, "the primary GPT is missing; this is its backup")
    elif backup is None:
        yield Flaw("gpt-backup", place * sector, "the backup of the GPT is missing")
    elif (main.guid, main.entries_crc) != (backup.guid, backup.entries_crc):
        yield Flaw("gpt-differs", place * sector, "the backup of the GPT is another one")


def _entries(disk: Region, header: _Header, sector: int, flaws: list[Flaw]) -> bytes | None:
    offset, size = header.entries * sector, header.count * header.entry
    if header.entry < 128 or size > MOST:
        sentence = f"there are {header.count} entries of {header.entry} bytes"
        flaws.append(Flaw("too-many", offset, sentence))
        return None
    data = disk.block(offset, size)
    if zlib.crc32(data) != header.entries_crc:
        flaws.append(Flaw("gpt-crc", offset, "the entries have a wrong checksum"))
        return None
    return data


def _gpt_partitions(data: bytes, header: _Header, sector: int) -> Iterator[Partition]:
    for number in range(len(data) // header.entry if data else 0):
        kind, own, first, last, attributes, name = struct.unpack_from(
            "<16s16sQQQ72s", data, number * header.entry
        )
        if any(kind):
            yield Partition(
                number + 1,
                first * sector,
                max(0, last + 1 - first) * sector,
                str(uuid.UUID(bytes_le=kind)),
                name.decode("utf-16-le", "replace").partition("\0")[0],
                str(uuid.UUID(bytes_le=own)),
                bool(attributes & 4),
                attributes,
            )


def _hybrid(disk: Region, sector: int, flaws: list[Flaw]) -> tuple[Partition, ...]:
    """The partitions of the MBR beside the one that protects the GPT."""
    head = disk.block(0, 512)
    if head[510:] != _BOOT:
        flaws.append(Flaw("no-mbr", 510, "no boot record protects the GPT"))
        return ()
    found = [*_primary(disk, head, sector, flaws)]
    others = tuple(one for one in found if one.type != f"0x{PROTECTIVE:02x}")
    if len(others) == len(found):
        flaws.append(Flaw("no-mbr", 446, "no partition of the boot record protects the GPT"))
    if others:
        flaws.append(Flaw("hybrid", 446, "the boot record has partitions beside the GPT"))
    return others


# -- Both ----------------------------------------------------------------------------------------


def _misplaced(disk: Region, partitions: Iterable[Partition]) -> Iterator[Flaw]:
    """Partitions that are empty, beyond the end, or on top of each other."""
    end, before = 0, 0
    extended = {f"0x{kind:02x}" for kind in EXTENDED}
    for one in sorted(partitions, key=lambda one: (one.start, one.number)):
        if one.size == 0:
            yield Flaw("empty", one.start, f"partition {one.number} has no size")
        if one.end > disk.size:
            sentence = f"partition {one.number} goes on behind the end of the disk"
            yield Flaw("beyond-end", one.start, sentence)
        if one.type in extended:
            continue  # It holds the logical ones.
        if one.start < end and one.size:
            sentence = f"partition {one.number} begins inside partition {before}"
            yield Flaw("overlap", one.start, sentence)
        if one.end > end:
            end, before = one.end, one.number
