"""Which receive buffers of virtio-net hold one frame (virtio 1.2, 5.1.6.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyvirt.virtio.kinds import kind_of
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.requests.net import MRG_RXBUF, header_size

if TYPE_CHECKING:
    from pyvirt.virtio.trace import Trace

_BUFFERS = 10  # where a header has how many buffers the frame fills


def merged_buffers(trace: Trace) -> dict[int, tuple[int, ...]]:
    """By the place of a frame's first buffer those of the others, in the order of the frame.

    Devices fill the buffers of a frame in the order in which they were made. A buffer that was
    not seen ends a frame early: what follows is not taken for part of it.
    """
    found: dict[int, tuple[int, ...]] = {}
    for number, queue in enumerate(trace.queues):
        if _merges(queue):
            found.update(_of_queue(trace, number, header_size(queue.features)))
    return found


def _merges(queue: TracedQueue) -> bool:
    receives = kind_of(queue.kind) == "virtio-net" and queue.name.startswith("rx")
    return receives and bool(queue.features & MRG_RXBUF)


def _of_queue(trace: Trace, number: int, header: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    orders, dones = trace.columns["order"], trace.columns["done"]
    first, rest, wanted = 0, list[int](), 0
    expected = -1
    for place in _in_order(trace, number):
        if wanted and orders[place] == expected and dones[place]:
            rest.append(place)
            wanted -= 1
        else:
            if rest:
                yield first, tuple(rest)
            first, rest, wanted = place, [], _more(trace, place, header)
        expected = orders[place] + 1
    if rest:
        yield first, tuple(rest)


def _in_order(trace: Trace, number: int) -> list[int]:
    orders = trace.columns["order"]
    places = [at for at, queue in enumerate(trace.columns["queue"]) if queue == number]
    return sorted(places, key=orders.__getitem__)


def _more(trace: Trace, place: int, header: int) -> int:
    """How many buffers follow one that begins a frame."""
    columns = trace.columns
    if columns["snapped_writable"][place] < header:
        return 0  # in flight, or too little was kept
    at = columns["payload"][place] + columns["snapped_readable"][place] + _BUFFERS
    return max(0, int.from_bytes(trace.payload[at : at + 2], "little") - 1)
