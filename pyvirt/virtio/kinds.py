"""Kinds of virtio devices and the names of their queues (virtio 1.2, 5.x.2)."""

from __future__ import annotations

from functools import lru_cache

VERSION_1 = 1 << 32
_CTRL_VQ, _MQ = 1 << 17, 1 << 22

#: One device has several names in QEMU: of its type, of its id in the standard.
_ALIASES = {
    "virtio-console": "virtio-serial",
    "virtio-gpu-gl": "virtio-gpu",
    "virtio-keyboard": "virtio-input",
    "virtio-mouse": "virtio-input",
    "virtio-tablet": "virtio-input",
    "virtio-user-fs": "virtio-fs",
    "virtio-sound": "virtio-snd",
}
_TRANSPORTS = ("-pci-transitional", "-pci-non-transitional", "-pci", "-device", "-ccw")

_FIXED = {
    "virtio-rng": ("request",),
    "virtio-9p": ("request",),
    "virtio-gpu": ("control", "cursor"),
    "virtio-input": ("event", "status"),
    "virtio-vsock": ("rx", "tx", "event"),
    "virtio-iommu": ("request", "event"),
    "virtio-mem": ("guest-request",),
    "virtio-pmem": ("request",),
    "virtio-snd": ("control", "event", "tx", "rx"),
}


@lru_cache(maxsize=256)
def kind_of(device: str) -> str:
    """The plain name of a kind of device: "virtio-blk" of "vhost-user-blk-pci" too."""
    for transport in _TRANSPORTS:
        device = device.removesuffix(transport)
    for served in ("vhost-user-", "vhost-"):
        if device.startswith(served):
            device = "virtio-" + device.removeprefix(served)
    return _ALIASES.get(device, device)


def queue_name(device: str, queue: int, *, features: int = 0, queues: int = 0) -> str:
    """What queue number `queue` is for: "rx0", "control", "request2".

    `queues` is how many the device has (0: unknown). It tells the control queue of virtio-net
    and virtio-crypto, which stands last, from the others.
    """
    kind = kind_of(device)
    if kind in _FIXED:
        known = _FIXED[kind]
        return known[queue] if 0 <= queue < len(known) else f"queue{queue}"
    named = _NAMED.get(kind)
    return named(queue, features, queues) if named else f"queue{queue}"


def _blk(queue: int, features: int, queues: int) -> str:
    return f"request{queue}"


def _net(queue: int, features: int, queues: int) -> str:
    if features & _CTRL_VQ and queue == _net_control(features, queues):
        return "control"
    return f"{('rx', 'tx')[queue % 2]}{queue // 2}"


def _net_control(features: int, queues: int) -> int:
    """Behind all pairs that the device has when it offers several, else behind the only one."""
    if not features & _MQ:
        return 2
    return queues - 1 if queues % 2 else -1


def _scsi(queue: int, features: int, queues: int) -> str:
    return ("control", "event")[queue] if 0 <= queue < 2 else f"request{queue - 2}"


def _serial(queue: int, features: int, queues: int) -> str:
    """The control queues stand behind those of port 0, for QEMU whether they are used or not."""
    if queue in (2, 3):
        return ("control-rx", "control-tx")[queue - 2]
    return f"{('rx', 'tx')[queue % 2]}{serial_port(queue)}"


def serial_port(queue: int) -> int:
    """The port whose data goes through a queue of virtio-serial."""
    return 0 if queue < 2 else queue // 2 - 1


def _balloon(queue: int, features: int, queues: int) -> str:
    """Queues of features that were not agreed on are not counted."""
    names = ["inflate", "deflate"]
    names += ["stats"] * bool(features & 1 << 1)
    names += ["free-page-hint"] * bool(features & 1 << 3)
    names += ["reporting"] * bool(features & 1 << 5)
    return names[queue] if 0 <= queue < len(names) else f"queue{queue}"


def _fs(queue: int, features: int, queues: int) -> str:
    special = ["hiprio", *["notification"] * (features & 1)]
    return special[queue] if 0 <= queue < len(special) else f"request{queue - len(special)}"


def _crypto(queue: int, features: int, queues: int) -> str:
    return "control" if queue == queues - 1 else f"data{queue}"


_NAMED = {
    "virtio-blk": _blk,
    "virtio-net": _net,
    "virtio-scsi": _scsi,
    "virtio-serial": _serial,
    "virtio-balloon": _balloon,
    "virtio-fs": _fs,
    "virtio-crypto": _crypto,
}
