"""One visit to a point: its device is plugged, its workload run, its costs counted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from pyvirt.bench import counts, fio, iperf
from pyvirt.bench.counts import Counted
from pyvirt.bench.disk import DiskPoint
from pyvirt.bench.ends import HostEnd, Joined, PeerEnd, TapEnd, joined
from pyvirt.bench.figure import Figure
from pyvirt.bench.guest import BenchGuest, Found
from pyvirt.bench.iperf import Iperf, RoundTrip
from pyvirt.bench.net import NetPoint
from pyvirt.bench.seen import followed

#: Requests of the shorter of two counted runs, and how many times as long the other one is.
REQUESTS, TIMES = 96, 3
#: Bytes of the shorter of two counted transfers.
TRANSFER = 16 << 20

#: A notification taken by an eventfd is seen late, and several at once are seen as one.
_SEEN = {"ioeventfd": False}

_MIB = float(1 << 20)


@frozen
class Visit:
    """A point whose device is there: `run` measures it once, `count` counts its costs.

    `follow` looks into its rings, where it is virtio. `told` is what is known after a run:
    the versions of the programs. `words` are QEMU's options for the device.
    """

    run: Callable[[], list[Figure]]
    count: Callable[[], list[Figure]]
    follow: Callable[[], list[Figure]]
    told: dict[str, Any]
    words: tuple[str, ...]


@contextmanager
def disk_visit(
    guest: BenchGuest, point: DiskPoint, path: str, limit: float, *, counting: bool = False
) -> Iterator[Visit]:
    """The disk of a point, for the block. With `counting` no notification escapes."""
    if point.resident:
        yield _of_disk(guest, point, guest.disk(serial(point)), limit)
        return
    plain = counting and point.model.bus == "virtio" and not point.model.given.get("iothread")
    disk = point.disk(path, properties=_SEEN if plain else {})
    with guest.plugged(disk) as found:
        yield _of_disk(guest, point, found, limit)


def serial(point: DiskPoint) -> str:
    """The serial number by which the guest finds a resident disk."""
    return f"bench{zlib.crc32(point.name.encode()):08x}"


def _of_disk(guest: BenchGuest, point: DiskPoint, found: Found, limit: float) -> Visit:
    job, told = point.workload, dict[str, Any]()
    device, patience = f"/dev/{found.name}", job.seconds + limit

    def run() -> list[Figure]:
        report = guest.fio(job.text(device), patience)
        told["fio"] = report.get("fio version")
        return list(fio.figures(report))

    def count() -> list[Figure]:
        longer = min(REQUESTS * TIMES, (job.size or point.size) // job.bs)
        shorter = max(longer // TIMES, 1)

        def counted(requests: int) -> tuple[int, int]:
            before = guest.requests(found.name)
            guest.fio(job.counted(device, requests), patience)
            after = guest.requests(found.name)
            return after[0] - before[0], after[1] - before[1]

        taken = _difference(guest, found, counted, shorter, longer)
        return list(_costs(*taken, request="request"))

    def follow() -> list[Figure]:
        if not (point.model.virtio and job.countable):
            return []
        requests = min(REQUESTS * TIMES, (job.size or point.size) // job.bs)
        return followed(
            guest.running,
            guest.id(found),
            lambda: guest.fio(job.counted(device, requests), patience),
        )

    return Visit(run, count, follow, told, found.words)


def _difference(
    guest: BenchGuest,
    found: Found,
    work: Callable[[int], tuple[int, int]],
    shorter: int,
    longer: int,
) -> tuple[Counted, int, int, int]:
    """What the longer run took more than the shorter: accesses, interrupts, requests, bytes."""
    where, lines = guest.registers(found), guest.interrupt_lines(found)
    taken = []
    for length in (shorter, longer):
        before = counts.interrupts(guest.interrupts(), lines)
        with guest.traced() as traced:
            requests, moved = work(length)
        after = counts.interrupts(guest.interrupts(), lines)
        taken.append((counts.counted(traced, where, guest.others), after - before, requests, moved))
    return _beyond(*taken)


#: What a run cost: accesses and notifications, interrupts, requests, bytes.
_Taken = tuple[Counted, int, int, int]


def _beyond(shorter: _Taken, longer: _Taken) -> _Taken:
    """What the longer run took more; all of it where chance made it the cheaper one.

    That happens where requests share notifications and interrupts. What each run costs beside
    its requests is then in the figure, which is so a little too high and never below 0.
    """
    few, *less = shorter
    many, *more = longer
    cost = many - few
    interrupts, requests, moved = (b - a for a, b in zip(less, more, strict=True))
    if min(cost.accesses, cost.notifications, interrupts) < 0:
        return longer
    return cost, interrupts, requests, moved


def _costs(
    counted: Counted, interrupts: int, requests: int, moved: int, request: str
) -> Iterator[Figure]:
    """Of each request and each MiB, as the guest's kernel gave them to the device.

    That merges requests before, and makes one packet of many that the card shall cut.
    """
    costs = {
        "accesses": counted.accesses,
        "notifications": counted.notifications,
        "interrupts": interrupts,
    }
    for name, cost in costs.items():
        yield Figure(f"{name}-per-{request}", cost / max(requests, 1), "1")
    for name, cost in costs.items():
        yield Figure(f"{name}-per-MiB", cost * _MIB / max(moved, 1), "1")


@contextmanager
def net_visit(
    guest: BenchGuest,
    point: NetPoint,
    end: HostEnd | TapEnd | PeerEnd,
    limit: float,
    *,
    counting: bool = False,
) -> Iterator[Visit]:
    """The card of a point, joined and with its link up, for the block."""
    with joined(end, point) as link:
        plain = counting and point.virtio and not point.vhost
        nic = point.nic(link.backend, _SEEN if plain else {})
        with guest.plugged(nic) as card:
            guest.connect(card.name, link.address, link.prefix)
            yield _of_card(guest, point, end, link, card, limit)


def _of_card(
    guest: BenchGuest,
    point: NetPoint,
    end: HostEnd | TapEnd | PeerEnd,
    link: Joined,
    card: Found,
    limit: float,
) -> Visit:
    told: dict[str, Any] = {}

    def run() -> list[Figure]:
        if isinstance(point.workload, RoundTrip):
            return _round_trips(guest, point.workload, end, link, limit)
        patience = point.workload.seconds + limit
        report = guest.report(point.workload.argv(link.server, end.port), patience)
        told["iperf3"] = report.get("start", {}).get("version")
        return list(iperf.figures(report))

    def count() -> list[Figure]:
        assert isinstance(point.workload, Iperf)
        work = point.workload

        def moved(size: int) -> tuple[int, int]:
            before = guest.packets(card.name)
            report = guest.report(work.argv(link.server, end.port, size), work.seconds + limit)
            return guest.packets(card.name) - before, iperf.transferred(report)

        moved(TRANSFER)  # so that a link that has just come up is in neither run
        taken = _difference(guest, card, moved, TRANSFER, TRANSFER * TIMES)
        return list(_costs(*taken, request="packet"))

    def follow() -> list[Figure]:
        work = point.workload
        if point.vhost or not (point.virtio and isinstance(work, Iperf) and work.countable):
            return []
        words = work.argv(link.server, end.port, TRANSFER)
        return followed(
            guest.running,
            guest.id(card),
            lambda: guest.report(words, work.seconds + limit),
            "tx" if work.direction == "send" else "rx",
        )

    return Visit(run, count, follow, told, card.words)


def _round_trips(
    guest: BenchGuest,
    work: RoundTrip,
    end: HostEnd | TapEnd | PeerEnd,
    link: Joined,
    limit: float,
) -> list[Figure]:
    server = end.serve(work.server(end.trips))
    try:
        report = guest.report(work.argv(link.server, end.trips), work.seconds + limit)
        return list(iperf.round_trips(report))
    finally:
        if server is not None:
            server.close()
