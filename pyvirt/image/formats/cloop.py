"""cloop images: zlib blocks behind one another, found by a list of offsets."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from pyvirt._native.blocks import Rule
from pyvirt.image.budget import Budget
from pyvirt.image.formats.blocks import PACKED, BlockLayer, Map, OneTable
from pyvirt.image.formats.unpack import zlib_stream
from pyvirt.image.layer import Match, Siblings
from pyvirt.image.source import Source, name_of
from pyvirt.image.structure import Fault, Place, at, string

MAGIC = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
TABLE = 136


@frozen
class Header:
    """The head of a shell script, and behind it two numbers."""

    preamble: str = at(0, "128s", string)
    block_size: int = at(128, "I")
    num_blocks: int = at(132, "I")


def _faults(header: Header, size: int) -> Iterator[Fault]:
    if not header.preamble.startswith("#!/bin/sh\n#V2.0 Format\n"):
        yield "preamble", "a script of format V2.0"
    if not 0 < header.block_size <= 64 << 20 or header.block_size % 512:
        yield "block_size", "whole sectors, 512 bytes to 64 MiB"
    if TABLE + 8 * (header.num_blocks + 1) > size:
        yield "num_blocks", f"at most {max(0, (size - TABLE) // 8 - 1)} in {size} bytes"


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    if head.startswith(MAGIC):
        return Match("cloop", 100, "begins with cloop's script")
    if head.startswith(MAGIC[:23]):
        return Match("cloop", 60, "begins as a script of format V2.0")
    return None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> BlockLayer:
    place = Place(name_of(source), "cloop", "header")
    header = place.read(Header, source, ">")
    place.check(header, _faults(header, source.size))
    rule = Rule(block=header.block_size, limit=source.size, flags=[PACKED], big=True, chained=True)
    map = Map(
        place.table_at(TABLE, "block offsets"),
        source,
        rule,
        header.block_size,
        8,
        OneTable(TABLE, 8),
        more=1,
    )
    size = header.num_blocks * header.block_size
    return BlockLayer(map, size, header, budget=budget, inflate=zlib_stream)
