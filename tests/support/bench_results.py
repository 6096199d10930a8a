"""Results as a run would give them, without a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyvirt.bench import Failure, Results, Row

META = {
    "accelerator": "tcg",
    "host": {"cpu": "AMD EPYC", "cpus": 2, "kernel": "Linux 6.1.0"},
    "qemu": "7.2.22",
    "guest kernel": "6.1.0-41-amd64",
    "pyvirt": "0.1.0",
    "started": "2026-11-22T13:35:31+00:00",
    "guests": {"pc, 1 vCPU, 768M, auto": ["qemu-system-x86_64", "-name", "a b"]},
}
IDE = (100e6, 110e6, 90e6, 105e6, 95e6, 100e6, 102e6)
VIRTIO = (200e6, 230e6, 185e6, 211e6, 180e6, 215e6, 196e6)
CARD, VIRTIO_CARD = (40e6, 44e6, 38e6, 41e6, 43e6, 42e6, 40e6), (86e6,) * 7


def series(device: str, workload: str, values: Sequence[float], **how: Any) -> list[Row]:
    """A figure for each round of one point."""
    options = {"device": device, **how.pop("options", {"backing": "ram"})}
    name = how.pop("name", f"{device}/{workload}")
    metric, unit = how.pop("metric", "throughput"), how.pop("unit", "B/s")
    busy = how.pop("busy", ())
    assert not how
    return [
        Row(name, device, workload, number, 0, metric, value, unit, number in busy, options)
        for number, value in enumerate(values)
    ]


def count(device: str, workload: str, metric: str, value: float, **how: Any) -> list[Row]:
    return series(device, workload, [value], metric=metric, unit="1", **how)


def results(**meta: Any) -> Results:
    """virtio-blk twice as fast as IDE, virtio-net as e1000, and one point that failed."""
    disk, net, tap = "write-1M-x4", "send-tcp", {"backend": "tap"}
    rows = [
        *series("ide", disk, IDE, busy=(2,)),
        *series("virtio-blk", disk, VIRTIO),
        *count("ide", disk, "accesses-per-request", 31),
        *count("virtio-blk", disk, "accesses-per-request", 1),
        *series("e1000", net, CARD, options=tap),
        *series("virtio-net", net, VIRTIO_CARD, options=tap),
        *count("e1000", net, "accesses-per-packet", 0.5, options=tap),
        *count("e1000", net, "accesses-per-MiB", 206, options=tap),
    ]
    failures = [Failure(f"lsi/{disk}", 1, "QEMU ended: killed by SIGSEGV", "last <words>")]
    pairs = [(f"virtio-blk/{disk}", f"ide/{disk}"), (f"virtio-net/{net}", f"e1000/{net}")]
    return Results(rows, failures, {**META, **meta}, pairs)
