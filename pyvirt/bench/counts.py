"""Counting what a KVM host would pay for: accesses to a device's registers, and its notifications.

QEMU's own tracing writes a line for each; a run of a known length is traced twice, once
three times as long, and the difference is exact: what each run costs beside cancels out.
Under TCG a notification that QEMU takes by an eventfd makes no access line, but a
``virtio_queue_notify`` line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

#: The events that are traced.
EVENTS = ("memory_region_ops_read", "memory_region_ops_write", "virtio_queue_notify")

#: What a PIIX3 IDE controller has beside its BAR (both channels, command and control).
IDE_PORTS = ((0x1F0, 8), (0x3F6, 1), (0x170, 8), (0x376, 1))

_ACCESS = re.compile(
    r"memory_region_ops_(?:read|write) cpu -?\d+ mr \S+ addr (0x[0-9a-f]+) .* name '(.*)'"
)
_NOTIFY = re.compile(r"virtio_queue_notify vdev (0x[0-9a-f]+) ")


@frozen
class Counted:
    """Accesses to the registers of one device, and notifications to it."""

    accesses: int = 0
    notifications: int = 0

    def __sub__(self, other: Counted) -> Counted:
        return Counted(
            self.accesses - other.accesses, self.notifications - other.notifications
        )


@frozen
class Registers:
    """Where a device's registers are: pairs of an address (or a port) and a length."""

    ranges: tuple[tuple[int, int], ...]

    def __contains__(self, address: int) -> bool:
        return any(start <= address < start + size for start, size in self.ranges)


def registers(device: Mapping[str, object]) -> Registers:
    """Those of a PCI device as ``query-pci`` tells of it."""
    regions = device.get("regions")
    assert isinstance(regions, list)
    ranges = [(one["address"], one["size"]) for one in regions if one["address"] > 0]
    kind = device["class_info"]
    assert isinstance(kind, dict)
    legacy = IDE_PORTS if kind["class"] == 0x0101 else ()  # PCI class code: IDE controller
    return Registers((*ranges, *legacy))


def devices_of(buses: Iterable[Mapping[str, object]]) -> Iterator[Mapping[str, object]]:
    """Every device in the answer to ``query-pci``, behind bridges too."""
    for bus in buses:
        for device in _list(bus, "devices"):
            yield device
            bridge = device.get("pci_bridge")
            if isinstance(bridge, dict):
                yield from devices_of([{"devices": bridge.get("devices", [])}])


def _list(mapping: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    found = mapping.get(key)
    return found if isinstance(found, list) else []


def vdevs(lines: Iterable[str]) -> frozenset[str]:
    """The virtio devices that the lines tell of notifications to."""
    return frozenset(found[1] for line in lines if (found := _NOTIFY.search(line)))


def counted(lines: Iterable[str], where: Registers, others: frozenset[str]) -> Counted:
    """What the lines tell of the device at `where`; `others` are other virtio devices.

    A notification that was an access of its own is counted as one access, like all others.
    """
    seen: Counter[str] = Counter()
    for line in lines:
        if found := _ACCESS.search(line):
            if int(found[1], 16) in where:
                seen["notify" if found[2].startswith("virtio-pci-notify") else "access"] += 1
        elif (found := _NOTIFY.search(line)) and found[1] not in others:
            seen["notification"] += 1
    notifications = max(seen["notification"], seen["notify"])
    return Counted(seen["access"] + notifications, notifications)


def interrupts(table: str, lines: frozenset[str]) -> int:
    """The interrupts on `lines` in the text of ``/proc/interrupts``, of all processors."""
    total = 0
    rows = table.splitlines()
    cpus = len(rows[0].split()) if rows else 0
    for row in rows[1:]:
        number, _, rest = row.partition(":")
        if number.strip() in lines:
            total += sum(int(word) for word in rest.split()[:cpus])
    return total
