"""Requests of virtio-rng and virtio-balloon (virtio 1.2, 5.4 and 5.5)."""

from __future__ import annotations

import struct

from attrs import frozen

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.requests.request import Request, Seen

PAGE = 4096  # of the balloon, whatever the guest's are
_PAGE_NUMBER = struct.Struct("<I")
_STATISTIC = struct.Struct("<HQ")

STATISTICS = (
    "swap-in", "swap-out", "major-faults", "minor-faults", "free-memory", "total-memory",
    "available-memory", "disk-caches", "hugetlb-allocations", "hugetlb-failures",
    "oom-kills", "allocation-stalls", "async-scans", "direct-scans", "async-reclaims",
    "direct-reclaims",
)  # fmt: skip


@frozen(kw_only=True, repr=False)
class RngRequest(Request):
    """A wish for random bytes; `length` is how many came, or may come while in flight."""


def rng(queue: TracedQueue, captured: Captured, seen: Seen | None = None) -> Request:
    """The request of a virtio-rng device."""
    room = captured.writable_length
    return RngRequest(
        queue=queue,
        captured=captured,
        seen=seen,
        operation="read",
        length=captured.filled if captured.done else room,
        data=captured.writable[: captured.filled],
        error=None if room else "has no room for random bytes",
    )


@frozen(kw_only=True, repr=False)
class BalloonRequest(Request):
    """Pages that change hands, or statistics of the guest; `length` in bytes of memory.

    `operation` is the name of its queue: "inflate", "deflate", "stats", "free-page-hint",
    "reporting".
    """

    #: Numbers of the pages of 4 KiB that are given or taken, as many as were captured.
    pages: tuple[int, ...] = ()
    #: Statistics by QEMU's names, in bytes or as counts since the guest booted.
    statistics: tuple[tuple[str, int], ...] = ()

    def summary(self) -> str:
        """What changes hands, or the statistics."""
        told = [f"{name}={value}" for name, value in self.statistics]
        return " ".join([Request.summary(self), *told])


def balloon(queue: TracedQueue, captured: Captured, seen: Seen | None = None) -> Request:
    """The request of a virtio-balloon device."""
    name = queue.name
    pages = _pages(captured) if name in ("inflate", "deflate") else ()
    return BalloonRequest(
        queue=queue,
        captured=captured,
        seen=seen,
        operation=name,
        length=_length(name, captured),
        error=_error(name, captured, len(pages)),
        pages=pages,
        statistics=_statistics(captured) if name == "stats" else (),
    )


def _whole(captured: Captured, item: struct.Struct) -> bytes:
    """The captured bytes, without those behind the last whole item."""
    known = captured.readable[: captured.readable_length]
    return known[: len(known) // item.size * item.size]


def _pages(captured: Captured) -> tuple[int, ...]:
    whole = _whole(captured, _PAGE_NUMBER)
    return tuple(number for (number,) in _PAGE_NUMBER.iter_unpack(whole))


def _statistics(captured: Captured) -> tuple[tuple[str, int], ...]:
    return tuple(
        (STATISTICS[tag] if tag < len(STATISTICS) else f"tag-{tag}", value)
        for tag, value in _STATISTIC.iter_unpack(_whole(captured, _STATISTIC))
    )


def _length(name: str, captured: Captured) -> int:
    if name in ("inflate", "deflate"):
        return captured.readable_length // _PAGE_NUMBER.size * PAGE
    # The pages themselves are what the device might write.
    return captured.writable_length if name in ("free-page-hint", "reporting") else 0


def _error(name: str, captured: Captured, known: int) -> str | None:
    item = {"inflate": _PAGE_NUMBER, "deflate": _PAGE_NUMBER, "stats": _STATISTIC}.get(name)
    if item is None:
        return None
    size = captured.readable_length
    if size % item.size:
        return f"has {size} bytes, which are no whole items of {item.size}"
    missing = size // item.size - known if item is _PAGE_NUMBER else 0
    return f"{missing} of its {size // item.size} pages were not captured" if missing else None
