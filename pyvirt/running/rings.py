"""The virtqueues of a running guest."""

from __future__ import annotations

from collections.abc import Sequence

from pyvirt.flows import rings as flow
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.ring import Ring


def rings(memory: GuestMemory, found: Sequence[flow.Found]) -> tuple[Ring, ...]:
    """The queues that QEMU told of, in guest memory."""
    return tuple(ring(memory, one) for one in found)


def ring(memory: GuestMemory, one: flow.Found) -> Ring:
    """One of them. QEMU knows where the device of a packed ring writes next, but no lap."""
    made = Ring(
        memory, one.layout, device=one.device, queue=one.queue, name=one.name,
        device_kind=one.kind, path=one.path,
    )  # fmt: skip
    if one.layout.packed and one.used is not None:
        state = made.snapshot()
        wrap = state.avail_wrap or 0
        if one.used == state.avail_idx and state.in_flight:
            return made  # none or all in flight: the ring knows better
        made.know(one.used, wrap if one.used <= state.avail_idx else 1 - wrap)
    return made
