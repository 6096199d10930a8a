"""Requests of a ring that is looked at now, without a trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.requests import Request, decoded

if TYPE_CHECKING:
    from pyvirt.virtio.memory import GuestMemory
    from pyvirt.virtio.ring import Ring
    from pyvirt.virtio.state import Chain, Descriptor

#: Bytes of each part that are read where nothing else is asked for.
SNAP = 4096


def requests(ring: Ring, *, snap: int = SNAP, queues: int = 0) -> Iterator[Request]:
    """What the device is working on: the chains in flight, decoded; in the order of the ring.

    `snap` is how many bytes of each are read, `queues` how many the device has (0: unknown).
    Raises `RingError` for a chain that is broken, `AddressError` for one that leads nowhere. In a
    guest that runs a sound one may look so too, once it is done and its memory used again.
    """
    queue = queue_of(ring, queues)
    for chain in ring.chains():
        yield decoded(queue, captured(ring.memory, chain, snap=snap))


def used(ring: Ring, chain: Chain, written: int, *, snap: int = SNAP, queues: int = 0) -> Request:
    """The request of a chain of which the device wrote `written` bytes.

    It is right as long as the driver has not taken what belonged to it for something else.
    """
    found = captured(ring.memory, chain, snap=snap, written=written)
    return decoded(queue_of(ring, queues), found)


def queue_of(ring: Ring, queues: int = 0) -> TracedQueue:
    """What decoders want to know of a ring."""
    return TracedQueue(
        ring.device or "",
        ring.device_kind,
        ring.path,
        ring.queue or 0,
        ring.layout.features,
        ring.size,
        queues,
    )


def captured(
    memory: GuestMemory, chain: Chain, *, snap: int = SNAP, written: int | None = None
) -> Captured:
    """The bytes of a chain; what the device may write only once it has `written`."""
    readable = [one for one in chain if not one.writable]
    writable = [one for one in chain if one.writable and one.length]
    done = written is not None
    return Captured(
        _first(memory, readable, snap),
        chain.readable,
        _first(memory, writable, snap) if done else b"",
        chain.writable,
        written,
        _last(memory, writable[-1]) if done and writable else None,
    )


def _first(memory: GuestMemory, parts: Iterable[Descriptor], snap: int) -> bytes:
    data = b""
    for one in parts:
        data += memory.read(one.address, min(one.length, snap - len(data)))
        if len(data) == snap:
            break
    return data


def _last(memory: GuestMemory, one: Descriptor) -> int:
    return memory.read(one.address + one.length - 1, 1)[0]
