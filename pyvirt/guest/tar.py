"""Trees on the wire: GNU tar, written and read as a stream; the records of pax are read too.

The standard library knows single headers; what lies between them is read here, because what
a guest sends must not decide how much memory that takes, and because what is cut short must
not pass for what is whole. The layout of pax: POSIX.1-2017, pax, "pax Interchange Format".
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from tarfile import TarInfo

from pyvirt.errors import ProtocolError, PyvirtError

BLOCK = 512
END = bytes(2 * BLOCK)
PIECE = 256 << 10
_LONGEST = 4096  # bytes in a name: PATH_MAX
_RECORDS = 1 << 20  # bytes of pax records for one entry: extended attributes have 64 KiB each
_PEER = "the guest's archive"
_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_NUMBERS = frozenset({"size", "uid", "gid", "mtime"})
_RECORD = re.compile(rb"(?P<length>\d{1,7}) (?P<key>[^=]+)=")
_NEWLINE = 0x0A


def header(info: TarInfo) -> bytes:
    """The blocks that begin an entry."""
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """What fills the last block of an entry's content."""
    return bytes(-size % BLOCK)


class Entries:
    """The entries of an archive that `read` gives in order.

    `read(n)` returns exactly `n` bytes, fewer only at the end. The content of an entry is
    taken with `content` before the next entry, or skipped.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.offset = 0
        self._left = self._pad = 0

    def __iter__(self) -> Iterator[TarInfo]:
        names: dict[bytes, str] = {}
        records: dict[str, str] = {}
        everywhere: dict[str, str] = {}
        while (info := self._next()) is not None:
            if info.type in _NAMES:
                names[info.type] = self._long(info.size)
            elif info.type in _PAX:
                records = self._records(info.size)
            elif info.type == tarfile.XGLTYPE:
                everywhere |= self._records(info.size)
            else:
                self._complete(info, names, everywhere | records)
                names, records = {}, {}
                yield info
                for _ in self.content():
                    pass
                self._exactly(self._pad)

    def _complete(self, info: TarInfo, names: dict[bytes, str], records: dict[str, str]) -> None:
        """Put what earlier blocks told of the entry into it, and be ready for its content."""
        info.name = records.get("path", names.get(tarfile.GNUTYPE_LONGNAME, info.name))
        info.linkname = records.get("linkpath", names.get(tarfile.GNUTYPE_LONGLINK, info.linkname))
        info.pax_headers = records
        try:
            for key in _NUMBERS & records.keys():
                setattr(info, key, int(records[key].partition(".")[0]))
        except ValueError:
            raise self._error("has a pax record that is no number") from None
        if info.issparse() or any(key.startswith("GNU.sparse.") for key in records):
            raise self._error("has a sparse file, which is not read")
        if info.size < 0 or (info.size and not info.isreg()):
            raise self._error("has an entry with a size that it cannot have")
        self._left, self._pad = info.size, -info.size % BLOCK

    def content(self) -> Iterator[bytes]:
        """The content of the entry that came last."""
        while self._left:
            part = self._exactly(min(self._left, PIECE))
            self._left -= len(part)
            yield part

    def skip(self, skip: Callable[[int], int]) -> None:
        """Pass over the content of the entry that came last; `skip(n)` says how much it could."""
        passed = skip(self._left)
        self.offset += passed
        if passed < self._left:
            raise self._error("ends too early")
        self._left = 0

    def _next(self) -> TarInfo | None:
        block = self._exactly(BLOCK)
        try:
            info = TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return None
        except tarfile.HeaderError as error:
            raise self._error(f"has a broken header ({error})") from error
        if info.islnk():  # old archives repeat the size, and no content follows
            info.size = 0
        return info

    def _long(self, size: int) -> str:
        if not 0 <= size <= _LONGEST:
            raise self._error("has a name longer than 4096 bytes")
        name = self._exactly(size + -size % BLOCK)[:size]
        return name.rstrip(b"\0").decode("utf-8", "surrogateescape")

    def _records(self, size: int) -> dict[str, str]:
        """``LENGTH KEY=VALUE`` and a newline, again and again; any bytes may be in a value."""
        if not 0 <= size <= _RECORDS:
            raise self._error(f"has more than {_RECORDS} bytes of pax records")
        data = self._exactly(size + -size % BLOCK)[:size]
        found: dict[str, str] = {}
        start = 0
        while start < size:
            head = _RECORD.match(data, start)
            end = start + int(head["length"]) if head else 0
            if head is None or not head.end() < end <= size or data[end - 1] != _NEWLINE:
                raise self._error("has a broken pax record")
            value = data[head.end() : end - 1]
            found[head["key"].decode("utf-8", "surrogateescape")] = value.decode(
                "utf-8", "surrogateescape"
            )
            start = end
        return found

    def _exactly(self, size: int) -> bytes:
        data = self._read(size) if size else b""
        self.offset += len(data)
        if len(data) < size:
            raise self._error("ends too early")
        return data

    def _error(self, reason: str) -> PyvirtError:
        return ProtocolError(_PEER, reason, self.offset)
