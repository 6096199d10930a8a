"""What a qcow2 header must not say, read bit by bit: no parser is trusted here to be complete."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pyvirt.errors import shown
from pyvirt.image.qcow2.header import DATA_FILE, INCOMPATIBLE
from pyvirt.image.source import Source
from pyvirt.image.untrusted.verdict import Reason

_CORRUPT, _DATA_FILE = 1, 2


def reasons(source: Source) -> Iterator[Reason]:
    head = source.pread(112, 0).ljust(112, b"\0")
    version, backing, length = struct.unpack_from(">IQI", head, 4)
    if backing or length:
        name = source.pread(min(length, 1023), backing) if backing < source.size else b""
        shows = shown(name.decode("utf-8", "surrogateescape"))
        yield Reason("backing-file", 8, f"it lies on the image {shows!r}")
    if version != 2:
        yield from _features(*struct.unpack_from(">QQQ", head, 72))
    elif any(head[72:80]):
        yield Reason("unknown-feature", 72, "it is of version 2, and has header extensions")
    yield from _extensions(source, head, version)


def _features(incompatible: int, compatible: int, autoclear: int) -> Iterator[Reason]:
    unknown = [bit for bit in range(len(INCOMPATIBLE), 64) if incompatible >> bit & 1]
    if unknown:
        bits = ", ".join(map(str, unknown))
        yield Reason(
            "unknown-feature", 72, f"it has incompatible features that are unknown: {bits}"
        )
    if incompatible >> _CORRUPT & 1:
        yield Reason("corrupt", 72, "it is marked as corrupt")
    if incompatible >> _DATA_FILE & 1:
        yield Reason("data-file", 72, "its content is in an external data file")
    elif autoclear >> 1 & 1:
        yield Reason("data-file", 88, "it tells of a raw data file that it does not have")


def _extensions(source: Source, head: bytes, version: int) -> Iterator[Reason]:
    """A data file that is named is told even if no feature bit speaks of it."""
    place = 72 if version == 2 else struct.unpack_from(">I", head, 100)[0]
    end = 1 << min(21, struct.unpack_from(">I", head, 20)[0])
    while place + 8 <= min(end, source.size):
        kind, size = struct.unpack(">II", source.pread(8, place))
        if kind == DATA_FILE:
            name = source.pread(min(size, 1023), place + 8).decode("utf-8", "surrogateescape")
            yield Reason("data-file", place, f"it names the data file {shown(name)!r}")
        if kind == 0:
            return
        place += 8 + -(-size // 8) * 8
