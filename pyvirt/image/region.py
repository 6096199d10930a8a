"""A part of a disk, read as if it were one of its own."""

from __future__ import annotations

from typing import Protocol

#: Bytes read at once, whatever a table asks for.
MOST = 1 << 20


class Disk(Protocol):
    """What a guest sees: an `Image`, or anything alike; `size` in bytes."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int, /) -> bytes: ...


class Region:
    """`size` bytes of `disk` from `start` on, as far as the disk goes.

    It is a `Source` as well, so that an image inside can be opened from it.
    """

    def __init__(self, disk: Disk, start: int = 0, size: int | None = None) -> None:
        room = max(0, disk.size - start)
        self.disk, self.start = disk, start
        self.size = room if size is None else min(size, room)
        self.name = f"byte {start} of {getattr(disk, 'name', 'a disk')}"

    def read(self, offset: int, size: int, /) -> bytes:
        """What is there; fewer bytes at the end."""
        size = min(size, self.size - offset)
        if offset < 0 or size <= 0:
            return b""
        return self.disk.read(self.start + offset, size)

    def pread(self, size: int, offset: int, /) -> bytes:
        return self.read(offset, size)

    def block(self, offset: int, size: int) -> bytes:
        """`size` bytes, at most `MOST`, with zeros behind the end."""
        size = min(size, MOST)
        return self.read(offset, size).ljust(size, b"\0")
