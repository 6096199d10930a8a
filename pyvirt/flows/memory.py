"""Where QEMU keeps guest memory: what its monitor says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from pyvirt.errors import UnsupportedError
from pyvirt.qmp.flow import Command, Flow

GIB = 1 << 30
#: Where memory goes on above the hole that PCI needs below 4 GiB.
HIGH = 4 * GIB

# QEMU's answer to gpa2hva (monitor/misc.c).
_ANSWER = re.compile(r"Host virtual address for 0x[0-9a-f]+ \((.*)\) is 0x([0-9a-f]+)")


@frozen
class Place:
    """Guest memory from `guest` on is at `host` in QEMU's address space, in block `name`."""

    guest: int
    host: int
    name: str


@frozen
class Module:
    """Memory that was plugged: `size` bytes from `guest` on, in the object `backend`."""

    guest: int
    size: int
    backend: str


def place(guest: int) -> Flow[Place | None]:
    """Where guest address `guest` is in QEMU's memory; None where there is no RAM."""
    said = yield Command("human-monitor-command", {"command-line": f"gpa2hva {guest:#x}"})
    match = _ANSWER.search(said)
    return Place(guest, int(match[2], 16), match[1]) if match else None


def modules() -> Flow[tuple[Module, ...]]:
    """DIMMs, NVDIMMs and virtio-mem devices, as ``query-memory-devices`` tells them."""
    found = []
    for device in (yield Command("query-memory-devices")):
        data: Mapping[str, Any] = device["data"]
        guest = data.get("addr", data.get("memaddr"))
        size = data.get("max-size", data.get("size"))
        if guest is not None and size:
            found.append(Module(guest, size, str(data.get("memdev", device["type"]))))
    return tuple(sorted(found, key=lambda module: module.guest))


def unshared(field: str, value: Any) -> UnsupportedError:
    """Why memory cannot be read: `field` of its description has `value`."""
    return UnsupportedError(
        "reading guest memory from outside",
        f"a VM whose {field} is {value!r}",
        "memfd and file back ends with share=True can be read",
    )
