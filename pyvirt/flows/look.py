"""What a VM shows, counts and takes from a pointer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyvirt.errors import SpecError
from pyvirt.qmp.flow import Command, Flow

#: The range of absolute pointer coordinates (QEMU's INPUT_EVENT_ABS_MAX).
POINTER_MAX = 0x7FFF

BUTTONS = ("left", "middle", "right", "wheel-up", "wheel-down", "side", "extra")


def screenshot(path: str, device: str | None, head: int, *, png: bool = True) -> Flow[None]:
    """Write the screen to `path` (``screendump``): a PNG, or a PPM, which every QEMU can."""
    where = {"device": device, "head": head} if device is not None else {}
    form = {"format": "png"} if png else {}
    yield Command("screendump", {"filename": path, **form, **where})


def point(x: float, y: float) -> Flow[None]:
    """Move an absolute pointer to `x`, `y`, fractions of the screen from 0.0 to 1.0."""
    for field, value in (("x", x), ("y", y)):
        if not 0.0 <= value <= 1.0:
            raise SpecError(field, "must be from 0.0 to 1.0", value)
    axes = [("x", x), ("y", y)]
    events = [
        {"type": "abs", "data": {"axis": axis, "value": round(part * POINTER_MAX)}}
        for axis, part in axes
    ]
    yield Command("input-send-event", {"events": events})


def click(button: str) -> Flow[None]:
    """Press and release a pointer button."""
    if button not in BUTTONS:
        raise SpecError("button", f"must be one of {', '.join(BUTTONS)}", button)
    for down in (True, False):
        event = {"type": "btn", "data": {"button": button, "down": down}}
        yield Command("input-send-event", {"events": [event]})


def block_statistics() -> Flow[Mapping[str, Mapping[str, Any]]]:
    """``query-blockstats`` by device id: bytes, operations, nanoseconds."""
    answer = yield Command("query-blockstats")
    return {_device(item): item["stats"] for item in answer}


def _device(item: Mapping[str, Any]) -> str:
    """The id a user knows: of the device where there is one, else of the node."""
    path = str(item.get("qdev") or item.get("device") or item.get("node-name", ""))
    parts = [part for part in path.split("/") if part]
    if "peripheral" in parts:
        return parts[parts.index("peripheral") + 1]
    return path
