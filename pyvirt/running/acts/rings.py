"""Acts that read a guest's memory and its virtqueues from outside."""

from __future__ import annotations

from pyvirt.flows import rings as flow
from pyvirt.flows.steps import Act
from pyvirt.running.acts.base import Base
from pyvirt.running.engine import Engine
from pyvirt.running.rings import rings
from pyvirt.running.rings.memory import LiveMemory
from pyvirt.running.rings.trace import BUDGET, BUFFER, INTERVAL, SNAP, Callback, Terms, Tracer
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.ring import Ring
from pyvirt.virtio.rings import Rings as Found


class Rings(Base):
    """Guest memory and virtqueues. The guest does not notice."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._memory = LiveMemory(engine)

    def guest_memory(self) -> Act[GuestMemory]:
        """The guest's memory, for `memory` of both faces."""
        return (yield from self._memory.now())

    def rings(self, device: str | None = None) -> Act[Found]:
        """The virtqueues of all virtio devices, or of `device`, that their drivers have set up.

        What cannot be read of one device raises when that device is asked for; else the result
        has it in `unreadable`, by device.

        A queue is where its driver put it: after a reset of the guest or the device, ask again.
        Queues that a vhost or vhost-user process serves are there too.
        """
        found = yield from flow.found(device)
        memory = yield from self._memory.now()
        return rings(memory, found, whole=device is None)

    def trace(
        self,
        *devices: str,
        interval: float = INTERVAL,
        budget: float = BUDGET,
        snap: int = SNAP,
        buffer: int = BUFFER,
        keep: bool = True,
        realtime: bool = True,
        callback: Callback | None = None,
    ) -> Act[Tracer]:
        """Follow every request to `devices` (by id; else to all), from now on, from outside.

        Queues are looked at when the guest kicks a device, and each `interval` seconds while
        something moves, as long as that takes no more than `budget` (a share of one processor); a
        guest that does nothing is not looked at. So the end of a request is seen at the next kick,
        or up to `interval` late: a shorter one tells latencies better, and costs the guest more.
        Of each request `snap` first bytes are kept of what the device reads and of what it
        writes. `buffer` is how many bytes of records may wait to be taken; `keep` keeps those that
        were iterated over for `Tracer.stop`, in memory without a limit. `callback` gets each
        request on a thread of its own. `realtime` looks with a real-time priority, where the host
        allows it: else requests are missed on a busy host, and the guest gets slower.

        It ends with the guest, and when the guest is reset: queues are elsewhere then.
        """
        terms = Terms(interval, budget, snap, buffer, keep, realtime)
        found: list[Ring] = []
        for device in devices or (None,):
            found += yield from self.rings(device)
        engine = self.engine
        tracer = Tracer(found, engine.pid, terms, callback=callback)
        tracer.end_with(engine.ended, f"{engine.vm.name} ended")
        resets = engine.talk.events("RESET")
        tracer.own(resets.close)
        tracer.end_with(resets.begin(), f"{engine.vm.name} was reset")
        return tracer
