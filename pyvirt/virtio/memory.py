"""Guest memory by guest-physical addresses: over bytes, files and dumps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from attrs import field, frozen

from pyvirt._native.vring import Memory
from pyvirt.errors import ClosedError, SpecError
from pyvirt.virtio import dump

#: Bytes that `search` holds at a time.
CHUNK = 1 << 20


@frozen
class Region:
    """`size` bytes of guest memory from guest address `guest` on.

    They are in `buffer`, in a file (`fd`, byte `offset` on), or in both: then large reads use
    the file, which costs the host no memory that the guest never touched.
    """

    guest: int
    size: int
    buffer: Any = field(default=None, repr=False)
    fd: int = field(default=-1, repr=False)
    offset: int = field(default=0, repr=False)
    name: str = ""

    @property
    def end(self) -> int:
        """The first guest address behind it."""
        return self.guest + self.size

    def __str__(self) -> str:
        return f"{self.guest:#x}-{self.end:#x}" + (f" {self.name}" if self.name else "")


class GuestMemory:
    """Guest memory: `data` from address 0 on, or buffers by their guest addresses.

        memory = GuestMemory({0: bytes(640 << 10), 1 << 32: bytearray(1 << 20)})

    Reads may cross from one region into the next; where something is not memory they raise
    `AddressError`, which names the hole. Use it in a ``with``, or `close` it.
    """

    def __init__(self, data: Any) -> None:
        buffers = data if isinstance(data, Mapping) else {0: data}
        regions = [Region(guest, memoryview(of).nbytes, of) for guest, of in buffers.items()]
        self._set(regions)

    def _set(self, regions: Iterable[Region]) -> None:
        self.regions = tuple(sorted((one for one in regions if one.size), key=lambda r: r.guest))
        for one, next_ in zip(self.regions, self.regions[1:], strict=False):
            if one.end > next_.guest:
                raise SpecError("regions", "must not overlap", (str(one), str(next_)))
        parts = [(r.guest, r.size, r.buffer, r.fd, r.offset) for r in self.regions]
        self.door = Memory(parts)

    @classmethod
    def of(cls, regions: Iterable[Region]) -> Self:
        """Memory of these regions. Their files may be closed then."""
        self = cls.__new__(cls)
        self._set(regions)
        return self

    @classmethod
    def from_file(cls, path: Path | str, at: int = 0) -> Self:
        """What ``pmemsave`` wrote: the file is guest memory from guest address `at` on."""
        return cls._opened_as(path, lambda fd: [(at, os.fstat(fd).st_size, 0)])

    @classmethod
    def from_dump(cls, path: Path | str) -> Self:
        """What ``dump-guest-memory`` wrote as ELF: its PT_LOAD segments."""
        return cls._opened_as(path, lambda fd: dump.segments(fd, path))

    @classmethod
    def _opened_as(cls, path: Path | str, find: Any) -> Self:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return cls.of(Region(guest, size, fd=fd, offset=at) for guest, size, at in find(fd))
        finally:
            os.close(fd)

    @property
    def size(self) -> int:
        """Bytes of all regions."""
        return sum(region.size for region in self.regions)

    def read(self, address: int, size: int) -> bytes:
        """A copy of `size` bytes from guest address `address` on."""
        return self.door.read(_checked("address", address), _checked("size", size))

    def readinto(self, address: int, buffer: Any) -> None:
        """Fill `buffer` from guest address `address` on."""
        self.door.readinto(_checked("address", address), buffer)

    def u8(self, address: int) -> int:
        """The byte at `address`."""
        return self.read(address, 1)[0]

    def u16(self, address: int) -> int:
        """Two bytes, little-endian."""
        return int.from_bytes(self.read(address, 2), "little")

    def u32(self, address: int) -> int:
        """Four bytes, little-endian."""
        return int.from_bytes(self.read(address, 4), "little")

    def u64(self, address: int) -> int:
        """Eight bytes, little-endian."""
        return int.from_bytes(self.read(address, 8), "little")

    def search(self, needle: bytes, start: int = 0, stop: int | None = None) -> Iterator[int]:
        """The addresses where `needle` is, ascending and overlapping, in [start, stop).

        Matches that cross from one region into an adjacent one are found; never more than a few
        chunks of 1 MiB are held.
        """
        if not needle:
            raise SpecError("needle", "must not be empty", needle)
        for begin, end in self._runs(start, stop):
            yield from self._search_run(bytes(needle), begin, end)

    def _runs(self, start: int, stop: int | None) -> Iterator[tuple[int, int]]:
        """Adjacent regions as one, cut to [start, stop)."""
        runs: list[list[int]] = []
        for region in self.regions:
            if runs and runs[-1][1] == region.guest:
                runs[-1][1] = region.end
            else:
                runs.append([region.guest, region.end])
        for begin, end in runs:
            begin, end = max(begin, start), end if stop is None else min(end, stop)
            if begin < end:
                yield begin, end

    def _search_run(self, needle: bytes, begin: int, end: int) -> Iterator[int]:
        tail = b""
        for at in range(begin, end, CHUNK):
            window = tail + self.read(at, min(CHUNK, end - at))
            first = at - len(tail)
            found = window.find(needle)
            while found >= 0:
                yield first + found
                found = window.find(needle, found + 1)
            tail = window[max(0, len(window) - len(needle) + 1) :]

    def close(self) -> None:
        """Read no more; let go of buffers and files."""
        self.door.end(ClosedError("guest memory", "it was let go of"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(map(str, self.regions)) or 'empty'}>"


def _checked(name: str, value: int) -> int:
    if not 0 <= value < 1 << 64:
        raise SpecError(name, "must be from 0 to 2**64 - 1", value)
    return value
