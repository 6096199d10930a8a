"""The virtqueues of a running guest, in its memory."""

from __future__ import annotations

from pyvirt.errors import PyvirtError, RingError
from pyvirt.flows import rings as flow
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.ring import Ring
from pyvirt.virtio.rings import Rings


def rings(memory: GuestMemory, found: flow.Survey, *, whole: bool = False) -> Rings:
    """The queues that QEMU told of, in guest memory.

    Each must be there if the survey is of one device; of a `whole` machine, a driver that put a
    queue where no memory is hides that device and no other.
    """
    made: list[Ring] = []
    unreadable: dict[str, PyvirtError] = dict(found.unreadable)
    for one in found.queues:
        try:
            made.append(ring(memory, one))
        except RingError as error:
            if not whole:
                raise
            unreadable.setdefault(one.device, error)
    return Rings((one for one in made if one.device not in unreadable), unreadable)


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
