"""Where the bytes of an image come from: files, block devices, memory, any object with pread."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from pyvirt.errors import ImageError

#: Nothing that opening could start or wait for: no terminal, no FIFO's other end.
FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
BLKGETSIZE64 = 0x80081272
# No file goes on beyond; images may name such places, and the kernel takes no such numbers.
_LAST = (1 << 63) - 1


@runtime_checkable
class Source(Protocol):
    """Bytes that can be read at any place; `size` in bytes."""

    @property
    def size(self) -> int: ...

    def pread(self, size: int, offset: int, /) -> bytes:
        """Bytes from `offset` on; fewer than `size` only at the end."""
        ...


class FileSource:
    """A regular file or block device, opened read-only by path, or by a duplicate of a fd."""

    __slots__ = ("_fd", "identity", "name", "size")

    def __init__(self, file: str | os.PathLike[str] | int, name: str | None = None) -> None:
        self._fd = -1
        self.name = name or (f"fd {file}" if isinstance(file, int) else os.fspath(file))
        self._fd = _reopen(file) if isinstance(file, int) else os.open(file, FLAGS)
        try:
            self.size, self.identity = _measure(self._fd, self.name)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The descriptor, which stays this source's own."""
        if self._fd < 0:
            raise ValueError(f"{self.name} is closed")
        return self._fd

    def pread(self, size: int, offset: int, /) -> bytes:
        if offset + size > _LAST:
            size = max(0, _LAST - offset)
            offset = min(offset, _LAST)
        data = os.pread(self.fileno(), size, offset)
        if len(data) in (0, size):
            return data
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.preadinto(buffer, offset)])

    def preadinto(self, buffer: Any, offset: int, /) -> int:
        """Fill `buffer`; the bytes read, fewer only at the end of the file."""
        view = memoryview(buffer).cast("B")[: max(0, _LAST - offset)]
        done = 0
        while done < len(view):
            got = os.preadv(self.fileno(), [view[done:]], offset + done)
            if not got:
                break
            done += got
        return done

    @property
    def allocated(self) -> int:
        """Bytes that the file takes in its file system."""
        return os.fstat(self.fileno()).st_blocks * 512

    def data(self) -> Iterator[tuple[int, int]]:
        """The parts of the file that are no holes: first byte and end of each."""
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self.fileno(), end, os.SEEK_DATA)
                end = os.lseek(self.fileno(), start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                if error.errno == errno.EINVAL:  # A device: everything is data.
                    yield end, self.size
                    return
                raise
            yield start, end

    def close(self) -> None:
        """Close the descriptor; once is enough."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"{self.name} was not closed", ResourceWarning, 2, self)
            self.close()

    def __repr__(self) -> str:
        return f"FileSource({self.name!r})"


def _reopen(fd: int) -> int:
    """A descriptor with a position of its own where the kernel allows it, else a duplicate."""
    try:
        return os.open(f"/proc/self/fd/{fd}", FLAGS)
    except OSError:
        return os.dup(fd)


def _measure(fd: int, name: str) -> tuple[int, tuple[int, int]]:
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return status.st_size, (status.st_dev, status.st_ino)
    if stat.S_ISBLK(status.st_mode):
        size = struct.unpack("=Q", fcntl.ioctl(fd, BLKGETSIZE64, bytes(8)))[0]
        return size, (status.st_dev, status.st_ino)
    raise ImageError(name, "is neither a regular file nor a block device")


class BytesSource:
    """Bytes in memory, read as a file would be."""

    __slots__ = ("_bytes", "name", "size")

    def __init__(self, content: bytes, name: str = "memory") -> None:
        self._bytes, self.name, self.size = bytes(content), name, len(content)

    def pread(self, size: int, offset: int, /) -> bytes:
        return self._bytes[offset : offset + size]

    def close(self) -> None:
        """Nothing to close."""

    def __repr__(self) -> str:
        return f"BytesSource({self.size} bytes)"


def name_of(source: Any) -> str:
    """What errors call a source."""
    return str(getattr(source, "name", None) or f"<{type(source).__name__}>")


def exactly(source: Source, size: int, offset: int, table: str = "") -> bytes:
    """All `size` bytes at `offset`, or an error that names the `table` they belong to."""
    data = source.pread(size, offset)
    if len(data) < size:
        raise ImageError(name_of(source), "is truncated", table=table or None, offset=offset)
    return data
