"""Which virtqueues a machine has, as QEMU's monitor tells it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from pyvirt.errors import CommandError, SpecError, UnsupportedError
from pyvirt.qmp.flow import Command, Flow
from pyvirt.virtio import features
from pyvirt.virtio.kinds import kind_of, queue_name
from pyvirt.virtio.layout import PACKED, RingLayout

ACCESS_PLATFORM = 1 << 33

#: QEMU's names of ring and transport features where they differ from the standard's.
_ALIASES = {
    "EVENT_IDX": "RING_EVENT_IDX",
    "INDIRECT_DESC": "RING_INDIRECT_DESC",
    "IOMMU_PLATFORM": "ACCESS_PLATFORM",
}
_IOMMU = re.compile(r"child<((?:intel|amd|virtio)-iommu|arm-smmuv3)(?:-pci)?>")
_NAME = re.compile(r"(?:VIRTIO|VHOST)(?:_[A-Z0-9]+?)??_F_([A-Z0-9_]+)")


@frozen
class Found:
    """A queue of a device: `device` is the id of the description, `kind` such as "virtio-blk".

    `path` is QEMU's QOM path of the device, `used` where a packed ring's device writes next.
    """

    device: str
    kind: str
    path: str
    queue: int
    name: str
    layout: RingLayout
    used: int | None


@frozen
class Survey:
    """The queues that drivers have set up, and why those of other devices cannot be read."""

    queues: tuple[Found, ...]
    unreadable: Mapping[str, UnsupportedError]


def found(device: str | None = None) -> Flow[Survey]:
    """Every queue that a driver has set up; of `device`, if that is named.

    Raises `UnsupportedError` where the queues of a named device have addresses that are not
    guest-physical.
    """
    rings: list[Found] = []
    unreadable: dict[str, UnsupportedError] = {}
    names = []
    for one in (yield from _devices()):
        path = str(one["path"])
        names.append(device_id(path))
        if device is None or device == names[-1]:
            status = yield Command("x-query-virtio-status", {"path": path})
            if _up(status):
                try:
                    rings += yield from _queues(names[-1], path, status)
                except UnsupportedError as error:
                    if device is not None:
                        raise
                    unreadable[names[-1]] = error
    if device is not None and device not in names:
        known = ", ".join(names) or "none"
        raise SpecError("device", f"must be a virtio device of this VM ({known})", device)
    return Survey(tuple(rings), unreadable)


def _devices() -> Flow[list[Mapping[str, Any]]]:
    try:
        devices: list[Mapping[str, Any]] = yield Command("x-query-virtio")
    except CommandError as error:
        if error.kind != "CommandNotFound":
            raise
        raise UnsupportedError("x-query-virtio", "this QEMU", "7.2 is the first") from error
    return sorted(devices, key=lambda one: str(one["path"]))


def device_id(path: str) -> str:
    """The id of the description in a QOM path; the path where the device has none."""
    device = path.removesuffix("/virtio-backend")
    return device.removeprefix("/machine/peripheral/")


def _up(status: Mapping[str, Any]) -> bool:
    """Whether the driver has said DRIVER_OK, after which queues stay where they are."""
    words = status.get("status", {}).get("statuses", ())
    return any(str(word).startswith("VIRTIO_CONFIG_S_DRIVER_OK") for word in words)


def _queues(device: str, path: str, status: Mapping[str, Any]) -> Flow[list[Found]]:
    kind = kind_of(str(status["name"]))
    bits = agreed(kind, status["guest-features"])
    iommu = (yield from _iommu()) if bits & ACCESS_PLATFORM else None
    if iommu is not None:
        raise UnsupportedError(
            f"reading the rings of {device}", f"a VM whose {iommu} translates its addresses",
            "it has iommu_platform on; without, its rings are readable",
        )  # fmt: skip
    if status.get("device-endian", "little") != "little":
        raise UnsupportedError(f"reading the rings of {device}", "a big-endian guest")
    count = int(status["num-vqs"])
    queues = []
    for number in range(count):
        queue = yield from _queue(path, number, served=bool(status.get("vhost-started")))
        if queue is not None:
            name = queue_name(kind, number, features=bits, queues=count)
            used = None if status.get("vhost-started") else queue.get("used-idx")
            queues.append(Found(device, kind, path, number, name, layout(queue, bits), used))
    return queues


def _iommu() -> Flow[str | None]:
    """The IOMMU of the machine, by its type; without one, platform addresses are the guest's own.

    Whether the guest has switched it on for this device, QEMU does not tell.
    """
    for place in ("/machine/peripheral", "/machine/peripheral-anon", "/machine/unattached"):
        for child in (yield Command("qom-list", {"path": place})):
            match = _IOMMU.fullmatch(str(child["type"]))
            if match:
                return match[1]
    return None


#: QEMU's words about a queue that vhost serves, and those about its own.
_VHOST = {
    "num": "vring-num", "desc-phys": "vring-desc", "avail-phys": "vring-avail",
    "used-phys": "vring-used",
}  # fmt: skip


def _queue(path: str, number: int, *, served: bool) -> Flow[Mapping[str, Any] | None]:
    """What QEMU says of one queue; None where the driver did not set it up.

    For ``x-query-virtio-queue-status``, QEMU asks whoever serves a queue for its place, and that
    ends the queue: a vhost-user process stops at GET_VRING_BASE. So it is asked only of queues
    that QEMU serves.
    """
    asked = {"path": path, "queue": number}
    if served:
        try:
            said = yield Command("x-query-virtio-vhost-queue-status", asked)
        except CommandError:
            pass  # QEMU's own, such as the control queue of a card
        else:
            queue = {ours: said[theirs] for theirs, ours in _VHOST.items()}
            return queue if queue["vring-desc"] and queue["vring-num"] else None
    try:
        queue = yield Command("x-query-virtio-queue-status", asked)
    except CommandError:  # a number that the device has, and no queue
        return None
    there = queue["vring-desc"] and queue["vring-num"]
    return queue if there else None


def layout(queue: Mapping[str, Any], bits: int) -> RingLayout:
    """The layout that QEMU says a queue has."""
    kind = "packed" if bits & PACKED else "split"
    return RingLayout(
        kind, queue["vring-num"], queue["vring-desc"], queue["vring-avail"], queue["vring-used"],
        bits,
    )  # fmt: skip


def agreed(kind: str, said: Mapping[str, Any]) -> int:
    """The feature bits that QEMU spells out as names."""
    bits = int(said.get("unknown-dev-features", 0))
    bits |= int(said.get("unknown-dev-features2", 0)) << 64
    for word in _words(said):
        match = _NAME.match(word)
        name = match[1] if match else ""
        name = _ALIASES.get(name, name)
        try:
            bits |= features.bit(kind, name)
        except KeyError:
            continue  # vhost's own features, which are no virtio features
    return bits & (1 << 64) - 1


def _words(said: Mapping[str, Any]) -> Iterable[str]:
    return [*map(str, said.get("transports", ())), *map(str, said.get("dev-features", ()))]
