"""The words with which ``qemu-img`` makes the image of a `TemporaryOverlay`.

Two steps: how large is the image below, and an empty one of that size. It names no backing
file itself (a qcow2 header has room for 1023 characters of one only); QEMU is told by
``-blockdev``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pyvirt.qemu.need import TemporaryOverlay
from pyvirt.qemu.render import resolve

PROGRAM = "qemu-img"
PACKAGE = "qemu-utils"


def measure(need: TemporaryOverlay, supplied: Mapping[str, str]) -> list[str]:
    """The command that describes the image below; `virtual_size` reads what it prints."""
    words = [PROGRAM, "info", "--output=json"]
    for option in need.objects:
        words += ["--object", _json(option.properties, supplied)]
    return [*words, "json:" + _json(need.backing, supplied)]


def virtual_size(printed: str | bytes) -> int:
    """The size in bytes, from what the command of `measure` printed."""
    return int(json.loads(printed)["virtual-size"])


def create(path: str, size: int) -> list[str]:
    """The command that makes the empty image at `path`."""
    return [PROGRAM, "create", "-q", "-f", "qcow2", path, str(size)]


def _json(value: Any, supplied: Mapping[str, str]) -> str:
    return json.dumps(resolve(value, supplied), separators=(",", ":"), ensure_ascii=False)
