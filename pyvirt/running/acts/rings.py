"""Acts that read a guest's memory and its virtqueues from outside."""

from __future__ import annotations

from pyvirt.flows import rings as flow
from pyvirt.flows.steps import Act
from pyvirt.running.acts.base import Base
from pyvirt.running.engine import Engine
from pyvirt.running.memory import LiveMemory
from pyvirt.running.rings import rings
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.ring import Ring


class Rings(Base):
    """Guest memory and virtqueues. The guest does not notice."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._memory = LiveMemory(engine)

    def guest_memory(self) -> Act[GuestMemory]:
        """The guest's memory, for `memory` of both faces."""
        return (yield from self._memory.now())

    def rings(self, device: str | None = None) -> Act[tuple[Ring, ...]]:
        """The virtqueues of all virtio devices, or of `device`, that their drivers have set up.

        A queue is where its driver put it: after a reset of the guest or the device, ask again.
        Queues that a vhost or vhost-user process serves are there too.
        """
        found = yield from flow.found(device)
        memory = yield from self._memory.now()
        return rings(memory, found)
