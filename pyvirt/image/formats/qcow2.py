"""qcow2, versions 2 and 3."""

from __future__ import annotations

from pyvirt.image.layer import Match

MAGIC = b"QFI\xfb"


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    version = int.from_bytes(head[4:8], "big")
    if head[:4] != MAGIC or version == 1:
        return None
    if version in (2, 3):
        return Match("qcow2", 100, f"magic QFI\\xfb and version {version}")
    return Match("qcow2", 50, f"magic QFI\\xfb, but version {version} is unknown")
