"""The log of a VHDX image, replayed in memory: the file stays as it is.

Source: Microsoft's [MS-VHDX] 2.3. The log is a ring of 4 KiB sectors. An entry is a header with
descriptors, and a sector for each that brings data. Entries whose sequence numbers follow one
another are a sequence; the one that ends with the greatest number is active, if its last entry
names its first as the tail.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from attrs import frozen

from pyvirt.errors import BudgetError, ImageError
from pyvirt.image.budget import Budget
from pyvirt.image.formats.vhdx_header import Header, checksum
from pyvirt.image.source import Source, exactly, name_of
from pyvirt.image.structure import Place, at, guid, parse

PAGE = 4096
#: An entry may be looked at from many sectors of the log, but not from all of a big one.
_EFFORT = 16


@frozen
class _Entry:
    signature: bytes = at(0, "4s")
    checksum: int = at(4, "I")
    entry_length: int = at(8, "I")
    tail: int = at(12, "I")
    sequence_number: int = at(16, "Q")
    descriptor_count: int = at(24, "I")
    log_guid: uuid.UUID = at(32, "16s", guid)
    flushed_file_offset: int = at(48, "Q")
    last_file_offset: int = at(56, "Q")


@frozen
class _Descriptor:
    signature: bytes = at(0, "4s")
    trailing_bytes: bytes = at(4, "4s")
    leading_bytes: bytes = at(8, "8s")
    file_offset: int = at(16, "Q")
    sequence_number: int = at(24, "Q")

    @property
    def zero_length(self) -> int:
        return int.from_bytes(self.leading_bytes, "little")


class ReplayedSource:
    """A file as it is once its log has been written to it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.size = source.size
        self.name = name_of(source)
        self.identity = getattr(source, "identity", None)
        self._pages: dict[int, bytes] = {}
        self._zeros: list[tuple[int, int]] = []
        self._left = 1 << 24  # Steps of work for zeros, a few hundred for each at least.

    def write(self, offset: int, page: bytes) -> None:
        """A page over what was there."""
        self._pages[offset] = page

    def zero(self, offset: int, length: int) -> None:
        """Zeros over what was there, pages included."""
        self._zeros.append((offset, offset + length))
        gone = list(self._changed(offset, length))
        self._left -= min(len(self._pages), length // PAGE) + 256
        if self._left < 0:
            raise ImageError(self.name, "asks for more work than its size explains", table="log")
        for page in gone:
            del self._pages[page]

    def grow(self, size: int) -> None:
        self.size = max(self.size, size)

    def pread(self, size: int, offset: int, /) -> bytes:
        size = max(0, min(size, self.size - offset))
        data = bytearray(self._source.pread(size, offset).ljust(size, b"\0"))
        for start, end in self._zeros:
            start, end = max(start, offset), min(end, offset + size)
            if start < end:
                data[start - offset : end - offset] = bytes(end - start)
        for page in self._changed(offset, size):
            start, end = max(page, offset), min(page + PAGE, offset + size)
            data[start - offset : end - offset] = self._pages[page][start - page : end - page]
        return bytes(data)

    def _changed(self, offset: int, size: int) -> Iterator[int]:
        first = offset // PAGE * PAGE
        if size // PAGE > len(self._pages):
            yield from (page for page in self._pages if first <= page < offset + size)
        else:
            yield from (p for p in range(first, offset + size, PAGE) if p in self._pages)


def replayed(place: Place, source: Source, header: Header, budget: Budget) -> Source:
    """`source`, with what its log holds; itself if that is nothing."""
    if not header.has_log:
        return source
    if header.log_length > budget.memory // 4:
        raise BudgetError(f"the log of {place.path}", header.log_length)
    place = place.table_at(header.log_offset, "log")
    log = exactly(source, header.log_length, header.log_offset, "log")
    entries = _Log(place, log, header.log_guid).active()
    if not entries:
        return source
    if entries[-1][1].flushed_file_offset > source.size:
        raise place.wrong(entries[-1][1], "flushed_file_offset", f"at most {source.size}")
    result = ReplayedSource(source)
    for data, entry in entries:
        _replay(place, data, entry, result)
    return result


class _Log:
    """The ring, and which of its sectors begin a whole entry."""

    def __init__(self, place: Place, log: bytes, guid: uuid.UUID) -> None:
        self._place, self._log, self._guid = place, log, guid
        self._left = _EFFORT * len(log)  # bytes whose checksums may still be computed
        self._known: dict[int, tuple[bytes, _Entry] | None] = {}

    def active(self) -> list[tuple[bytes, _Entry]]:
        """The entries that must be replayed, in order."""
        whole = [entry for at in range(0, len(self._log), PAGE) if (entry := self._entry(at))]
        for head in sorted(whole, key=lambda one: -one[1].sequence_number):
            if found := self._sequence(head):
                return found
        return []

    def _sequence(self, head: tuple[bytes, _Entry]) -> list[tuple[bytes, _Entry]]:
        """The entries from the tail of `head` up to it; none if they do not lead there."""
        found: list[tuple[bytes, _Entry]] = []
        at = head[1].tail
        while at % PAGE == 0 and at < len(self._log) and (entry := self._entry(at)):
            self._work(PAGE, at)
            if found and entry[1].sequence_number != found[-1][1].sequence_number + 1:
                return []
            found.append(entry)
            if entry is head:
                return found
            at = (at + entry[1].entry_length) % len(self._log)
        return []

    def _work(self, size: int, at: int) -> None:
        self._left -= size
        if self._left < 0:
            raise self._place.error("asks for more work than its size explains", at)

    def _entry(self, at: int) -> tuple[bytes, _Entry] | None:
        if at not in self._known:
            self._known[at] = self._read(at)
        return self._known[at]

    def _read(self, at: int) -> tuple[bytes, _Entry] | None:
        """The entry that begins at a sector, if there is a whole one."""
        entry = parse(_Entry, self._log, "<", at)
        size = entry.entry_length
        good = entry.signature == b"loge" and entry.log_guid == self._guid
        if not good or not size or size % PAGE or size > len(self._log):
            return None
        if not entry.sequence_number or 64 + 32 * entry.descriptor_count > size:
            return None
        self._work(size, at)
        data = self._log[at : at + size]
        data += self._log[: size - len(data)]
        return (data, entry) if checksum(data) == entry.checksum else None


def _replay(place: Place, data: bytes, entry: _Entry, result: ReplayedSource) -> None:
    """Write what an entry describes."""
    at = -(-(64 + 32 * entry.descriptor_count) // PAGE) * PAGE
    for number in range(entry.descriptor_count):
        one = parse(_Descriptor, data, "<", 64 + 32 * number)
        if one.sequence_number != entry.sequence_number or one.file_offset % PAGE:
            raise place.error("has a descriptor that is not its entry's", found=one)
        if one.signature == b"zero":
            result.zero(one.file_offset, one.zero_length)
        elif one.signature == b"desc":
            result.write(one.file_offset, _page(place, data[at : at + PAGE], one))
            at += PAGE
        else:
            raise place.error("has a descriptor of no known kind", found=one.signature)
    result.grow(entry.last_file_offset)


def _page(place: Place, sector: bytes, one: _Descriptor) -> bytes:
    """The page that a data sector and its descriptor hold together."""
    number = sector[4:8] + sector[-4:]  # High half in front, low half behind.
    sequence = int.from_bytes(number[:4], "little") << 32 | int.from_bytes(number[4:], "little")
    if len(sector) < PAGE or sector[:4] != b"data" or sequence != one.sequence_number:
        raise _torn(place, one)
    return one.leading_bytes + sector[8:-4] + one.trailing_bytes


def _torn(place: Place, one: _Descriptor) -> ImageError:
    return place.error("lacks the data of a descriptor", found=one)
