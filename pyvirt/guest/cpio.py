"""Writes cpio archives in the "newc" format, the only one Linux unpacks as an initramfs.

Layout: https://docs.kernel.org/driver-api/early-userspace/buffer-format.html. Owners are
root and times are zero, so that equal contents are equal bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

from attrs import field, frozen

from pyvirt.errors import SpecError

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_LARGEST = 0xFFFF_FFFF  # eight hexadecimal digits
_LONGEST_NAME = 4095  # PATH_MAX with its NUL: Linux skips an entry with a longer one


@frozen
class Entry:
    """One file, directory, link or device node; `path` is relative to the root."""

    path: str
    mode: int
    data: bytes = field(default=b"", repr=False)
    device: tuple[int, int] = (0, 0)

    def __attrs_post_init__(self) -> None:
        name = _name(self.path)
        if not name or b"\0" in name or self.path.startswith("/") or self.path == _TRAILER:
            raise SpecError("path", "must be a relative path without NUL", self.path)
        if len(name) > _LONGEST_NAME:
            raise SpecError("path", f"must not be longer than {_LONGEST_NAME} bytes", self.path)
        if len(self.data) > _LARGEST:
            raise SpecError("data", "must be smaller than 4 GiB", len(self.data))


def regular(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file with permissions *mode*."""
    return Entry(path, stat.S_IFREG | mode, data)


def directory(path: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(path, stat.S_IFDIR | mode)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link to *target*."""
    return Entry(path, stat.S_IFLNK | 0o777, _name(target))


def character(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device node."""
    return Entry(path, stat.S_IFCHR | mode, device=(major, minor))


def newc(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The pieces of the archive that holds *entries* in their order."""
    for inode, entry in enumerate(entries, 1):
        yield from _pieces(inode, entry.mode, _name(entry.path), entry.data, entry.device)
    yield from _pieces(0, 0, _TRAILER.encode(), b"", (0, 0))


def _pieces(
    inode: int, mode: int, name: bytes, data: bytes, device: tuple[int, int]
) -> Iterator[bytes]:
    links = 2 if stat.S_ISDIR(mode) else 1
    sizes = (inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    header = _MAGIC + b"".join(b"%08X" % number for number in sizes)
    yield _padded(header + name + b"\0")
    yield data
    yield bytes(-len(data) % 4)


def _padded(piece: bytes) -> bytes:
    return piece + bytes(-len(piece) % 4)


def _name(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
