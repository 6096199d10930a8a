"""What a VMDK may say, if all of its content is to be in this one file.

QEMU opens the files of the extent lines of a descriptor, whether it is a file of its own or
embedded behind a sparse header with no capacity; and the image that ``parentFileNameHint`` names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from attrs import frozen

from pyvirt.errors import shown
from pyvirt.image.source import Source
from pyvirt.image.untrusted.verdict import Reason

SECTOR = 512
#: QEMU looks for the embedded descriptor there, and for `MOST` bytes of it.
PLACE, MOST = 512, (1 << 20) - 1
#: The grain directory's place says: the footer has it.
AT_END = (1 << 64) - 1

_HEADER = struct.Struct("<4sIIQQQQIQQQ")
_ACCESS = {"rw", "rdonly", "noaccess"}
_SINGLE = {"monolithicsparse", "streamoptimized"}
_FOOTER, _END_OF_STREAM = 3, 0


@frozen
class _Header:
    magic: bytes
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_size: int
    entries: int
    redundant: int
    directory: int
    overhead: int


def reasons(source: Source) -> Iterator[Reason]:
    head = source.pread(SECTOR, 0).ljust(SECTOR, b"\0")
    if head[:4] == b"KDMV":
        header = _Header(*_HEADER.unpack_from(head))
        yield from _sparse(header, source)
        yield from _embedded(header, source)
    elif head[:4] == b"COWD" or head[:8] == b"\xbe\xba\xfe\xca\0\0\0\0":
        yield Reason("subformat", 0, "it is one extent of a disk of ESX, without its descriptor")
    else:
        yield Reason("extent", 0, "it is a descriptor alone, so its content is in other files")
        yield from _descriptor(source.pread(min(MOST, source.size), 0), 0)


def _sparse(header: _Header, source: Source) -> Iterator[Reason]:
    if header.version not in (1, 2, 3):
        yield Reason("subformat", 4, f"version {header.version} is unknown")
    if header.capacity == 0:
        yield Reason("extent", 12, "it has no capacity, so QEMU follows its embedded descriptor")
    if header.directory == AT_END:
        yield from _footer(header, source)


def _footer(header: _Header, source: Source) -> Iterator[Reason]:
    """Marker, footer and end of stream: the last three sectors."""
    place = source.size - 3 * SECTOR
    if place < SECTOR:
        yield Reason("footer", 56, "it has no room for the footer that it tells of")
        return
    marker, copy, end = (source.pread(SECTOR, place + SECTOR * each) for each in range(3))
    footer = _Header(*_HEADER.unpack_from(copy))
    same = ("magic", "version", "capacity", "grain", "descriptor", "descriptor_size")
    for name in same:
        if getattr(header, name) != getattr(footer, name):
            yield Reason("footer", place + SECTOR, f"header and footer differ in the {name}")
    if footer.directory == AT_END:
        yield Reason("footer", place + SECTOR, "the footer tells of another footer")
    _, size, kind = struct.unpack_from("<QII", marker)
    if (size, kind) != (0, _FOOTER) or any(marker[16:]):
        yield Reason("footer", place, "the marker before the footer is no such marker")
    if any(end):
        yield Reason("footer", place + 2 * SECTOR, "the stream does not end behind the footer")


def _embedded(header: _Header, source: Source) -> Iterator[Reason]:
    size = min(header.descriptor_size * SECTOR, MOST)
    if header.descriptor * SECTOR != PLACE:
        yield Reason("descriptor", 28, "its descriptor is not where QEMU reads it, at byte 512")
    if not size:
        yield Reason("descriptor", 36, "its descriptor has no size")
    # Whatever the header says of the place, QEMU reads 20 sectors from byte 512 on.
    text = source.pread(max(size, 20 * SECTOR), PLACE)
    if b"parentfilenamehint" in text.lower():
        where = PLACE + text.lower().index(b"parentfilenamehint")
        yield Reason("backing-file", where, "it names a parent image")
    if size:
        yield from _descriptor(text[:size], PLACE)


def _descriptor(data: bytes, place: int) -> Iterator[Reason]:
    """Every line must be one that a tool writes."""
    text, _, rest = data.partition(b"\0")
    if rest.strip(b"\0"):
        yield Reason("descriptor", place + len(text), "its descriptor goes on behind its end")
    if not text.isascii():
        yield Reason("descriptor", place, "its descriptor is not plain text")
    kind, extents, at = None, 0, place
    for raw in text.split(b"\n"):
        line = raw.decode("latin-1").strip().lower()
        name, equals, value = (part.strip() for part in line.partition("="))
        if line.split(" ")[0] in _ACCESS:
            extents += 1
            yield from _extent(line, at)
        elif name == "createtype":
            if kind is not None:
                yield Reason("descriptor", at, "its descriptor tells its type twice")
            kind = value.strip('"')
        elif name == "parentfilenamehint":
            yield Reason("backing-file", at, f"it names the parent image {shown(value)}")
        elif line and line[0] != "#" and not line.startswith("ddb.") and not _field(name, equals):
            yield Reason("descriptor", at, "its descriptor has a line that no tool writes")
        at += len(raw) + 1
    if kind not in _SINGLE:
        yield Reason("subformat", place, f"type {shown(kind)!r} keeps its content in other files")
    if extents != 1:
        yield Reason("extent", place, f"its descriptor names {extents} extents instead of one")


def _field(name: str, equals: str) -> bool:
    return bool(equals) and name.replace("_", "").replace(".", "").isalnum()


def _extent(line: str, at: int) -> Iterator[Reason]:
    words = line.split('"')
    kind = words[0].split()
    if len(kind) != 3 or kind[2] != "sparse" or not kind[1].isdecimal():
        yield Reason("extent", at, "it names an extent that is no sparse part of this file")
    name = words[1] if len(words) == 3 else ""
    if not name or set(name) & set("/\\:") or name in (".", ".."):
        yield Reason("extent", at, f"it names the extent {shown(line)!r}, with a path")
