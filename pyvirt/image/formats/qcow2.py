"""qcow2, versions 2 and 3."""

from __future__ import annotations

from pyvirt.image.budget import Budget
from pyvirt.image.layer import Match, Siblings
from pyvirt.image.qcow2.header import MAGIC, read_header
from pyvirt.image.qcow2.layer import Qcow2Layer
from pyvirt.image.source import Source


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    version = int.from_bytes(head[4:8], "big")
    if head[:4] != MAGIC or version == 1:
        return None
    if version in (2, 3):
        return Match("qcow2", 100, f"magic QFI\\xfb and version {version}")
    return Match("qcow2", 50, f"magic QFI\\xfb, but version {version} is unknown")


def open(source: Source, *, budget: Budget, siblings: Siblings) -> Qcow2Layer:
    """The active disk of a qcow2 image."""
    return Qcow2Layer(source, read_header(source), budget, siblings)
