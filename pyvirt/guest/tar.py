"""Trees on the wire: GNU tar, written and read as a stream.

The standard library knows single headers; what lies between them is read here, because what
a guest sends must not decide how much memory that takes.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from tarfile import TarInfo

from pyvirt.errors import ProtocolError

BLOCK = 512
END = bytes(2 * BLOCK)
PIECE = 256 << 10
_LONGEST = 4096  # bytes in a name: PATH_MAX
_PEER = "the guest's archive"


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
        while (info := self._next()) is not None:
            if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                names[info.type] = self._long(info.size)
                continue
            info.name = names.get(tarfile.GNUTYPE_LONGNAME, info.name)
            info.linkname = names.get(tarfile.GNUTYPE_LONGLINK, info.linkname)
            names = {}
            self._left, self._pad = info.size, -info.size % BLOCK
            yield info
            for _ in self.content():
                pass
            self._exactly(self._pad)

    def content(self) -> Iterator[bytes]:
        """The content of the entry that came last."""
        while self._left:
            part = self._exactly(min(self._left, PIECE))
            self._left -= len(part)
            yield part

    def _next(self) -> TarInfo | None:
        block = self._exactly(BLOCK)
        try:
            info = TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return None
        except tarfile.HeaderError as error:
            raise self._error(f"has a broken header ({error})") from error
        if info.size < 0 or (info.size and not (info.isreg() or info.type in b"LK")):
            raise self._error("has an entry with a size that it cannot have")
        return info

    def _long(self, size: int) -> str:
        if size > _LONGEST:
            raise self._error("has a name longer than 4096 bytes")
        name = self._exactly(size + -size % BLOCK)[:size]
        return name.rstrip(b"\0").decode("utf-8", "surrogateescape")

    def _exactly(self, size: int) -> bytes:
        data = self._read(size) if size else b""
        self.offset += len(data)
        if len(data) < size:
            raise self._error("ends too early")
        return data

    def _error(self, reason: str) -> ProtocolError:
        return ProtocolError(_PEER, reason, self.offset)
