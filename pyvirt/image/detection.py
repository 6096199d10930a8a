"""Which formats a file may have, told by its content and never by its name."""

from __future__ import annotations

from pyvirt.image.formats import FORMATS, format_module
from pyvirt.image.layer import Match
from pyvirt.image.source import Source

#: Bytes looked at from the start of a file, and from its end.
HEAD = 64 << 10
TAIL = 512


def detect(source: Source) -> tuple[Match, ...]:
    """What `source` may be, best first; a raw image that looks like another is told as both."""
    head = source.pread(HEAD, 0)
    tail = head[-TAIL:] if source.size <= HEAD else source.pread(TAIL, source.size - TAIL)
    found = (format_module(name).probe(head, source.size, tail) for name in FORMATS)
    matches = [match for match in found if match is not None]
    return tuple(sorted(matches, key=lambda match: -match.confidence))
