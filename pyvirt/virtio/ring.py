"""A virtqueue in guest memory: indexes, entries and chains, split and packed.

Who reads a ring that is in use gets copies. An index is read before and after what it says
something about, and both again where it moved, at most 8 times; the result says where it kept
moving. A descriptor is copied once, and what it says is followed in the copy alone, so a
guest that changes it meanwhile can make a chain wrong but never make reading it unsafe.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pyvirt._native.vring import Queue, Queues
from pyvirt.errors import ClosedError, RingError
from pyvirt.virtio.breach import breaches
from pyvirt.virtio.flight import held, ordered, windows
from pyvirt.virtio.layout import IN_ORDER, RingLayout
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.state import NEXT, Breach, Chain, InFlight, RingState, Used


class Ring:
    """The ring at `layout` in `memory`: a `GuestMemory`, or bytes that begin at address 0.

    `device`, `queue`, `name`, `device_kind` ("virtio-blk") and `path` only say whose it is.
    """

    def __init__(
        self,
        memory: GuestMemory | Any,
        layout: RingLayout,
        *,
        device: str | None = None,
        queue: int | None = None,
        name: str = "",
        device_kind: str = "",
        path: str = "",
    ) -> None:
        self.memory = memory if isinstance(memory, GuestMemory) else GuestMemory(memory)
        self.layout, self.device, self.queue, self.name = layout, device, queue, name
        self.device_kind, self.path = device_kind, path
        self.door = Queue(
            self.memory.door, layout.desc, layout.driver, layout.device, layout.features,
            layout.size, layout.packed, device, queue,
        )  # fmt: skip

    @property
    def kind(self) -> str:
        """Either "split" or "packed"."""
        return self.layout.kind

    @property
    def size(self) -> int:
        """How many entries it has."""
        return self.layout.size

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features of rings that were agreed on."""
        return self.layout.names

    def know(self, slot: int, wrap: int) -> None:
        """A packed ring's device writes next to `slot`, in the lap of wrap counter `wrap`.

        The ring does not always tell: the device writes one slot of a chain and skips the rest.
        """
        self.door.know(slot, bool(wrap))

    def snapshot(self) -> RingState:
        """Its indexes, flags and event indexes of this moment."""
        return RingState(self.door.look(), self.layout.packed)

    @property
    def untouched(self) -> bool:
        """Whether its driver never used it, as far as it shows; False once it cannot be read."""
        try:
            return self.snapshot().untouched
        except ClosedError:
            return False

    def in_flight(self) -> InFlight:
        """The chains that the device has and has not used."""
        raw, desc, driver, device, moved = self.door.areas()
        state = RingState(raw, self.layout.packed)
        if self.layout.packed:
            return self._packed_flight(state, desc, moved)
        avail = struct.unpack_from(f"<{self.size}H", driver, 4)
        found = self._held(state, avail, struct.unpack_from("<" + "I4x" * self.size, device, 4))
        certain = found.certain and not moved and state.consistent
        return InFlight(found.ids, found.count, certain, () if moved else found.sure)

    def _held(self, state: RingState, avail: Sequence[int], used: Sequence[int]) -> InFlight:
        places = self.size, state.avail_idx, state.used_idx
        if self.layout.features & IN_ORDER:
            return ordered(*places, avail)
        return held(*places, *windows(avail, used, state.avail_idx, state.used_idx))

    def _packed_flight(self, state: RingState, desc: bytes, moved: bool) -> InFlight:
        """By the slots between device and driver, which hold what the driver wrote there.

        Chains that completed out of order may still stand there: two already are uncertain, if
        IN_ORDER was not agreed on.
        """
        pairs = struct.unpack("<" + "12xHH" * self.size, desc)  # id, then flags
        ids, slot, left = [], state.used_idx, state.in_flight
        while left > 0:
            slots = 1
            while pairs[2 * slot + 1] & NEXT and slots < left:
                slot, slots = (slot + 1) % self.size, slots + 1
            ids.append(pairs[2 * slot])
            slot, left = (slot + 1) % self.size, left - slots
        alone = len(ids) < 2 or bool(self.layout.features & IN_ORDER)
        certain = state.certain and not moved and alone
        return InFlight(tuple(ids), state.in_flight, certain, tuple(ids) if certain else ())

    def avail(self) -> tuple[int, ...]:
        """The heads in the avail ring of a split ring, slot by slot."""
        self._only("split", "has no avail ring")
        return struct.unpack_from(f"<{self.size}H", self.memory.read(*self._area(1)), 4)

    def used(self) -> tuple[Used, ...]:
        """The entries of the used ring of a split ring, slot by slot."""
        self._only("split", "has no used ring")
        entries = struct.iter_unpack("<II", self.memory.read(*self._area(2))[4 : 4 + 8 * self.size])
        return tuple(Used(*entry) for entry in entries)

    def chain(self, head: int, wrap: int | None = None) -> Chain:
        """The chain of head `head`; of a packed ring, the one that begins in slot `head`.

        `wrap` is the driver's wrap counter when it wrote there: without it, what the slot says.
        Raises `RingError` where the chain is broken.
        """
        if not 0 <= head < self.size:
            raise RingError("a descriptor is named that its table does not have", index=head,
                            found=head, expected=f"below {self.size}", device=self.device,
                            queue=self.queue)  # fmt: skip
        if self.layout.packed and wrap is None:
            wrap = self.memory.read(self.layout.desc + 16 * head + 14, 1)[0] >> 7 & 1
        return Chain(*self.door.chain(head, bool(wrap)))

    def chains(self) -> Iterator[Chain]:
        """The chains in flight, each copied when its turn comes.

        A ring in use goes on meanwhile: a chain may be used, and its descriptors taken for
        another one, before it is copied.
        """
        if not self.layout.packed:
            for head in self.in_flight().ids:
                yield self.chain(head)
            return
        state = self.snapshot()
        slot, wrap, left = state.used_idx, state.used_wrap or 0, state.in_flight
        while left > 0:
            chain = self.chain(slot, wrap)
            yield chain
            slot, left = slot + chain.slots, left - chain.slots
            if slot >= self.size:
                slot, wrap = slot - self.size, 1 - wrap

    def walk(self, chains: Any, descriptors: Any, start: int, stop: int, wrap: int = 1
    ) -> tuple[int, int]:  # fmt: skip
        """Chains of avail indexes [start, stop) into two lent buffers, in one call.

        Of a packed ring, those that are available from slot `start` on in the lap of `wrap`.
        `chains` gets 32 bytes for each: bytes to read and to write (u64), descriptors (u32),
        slots and id (u16), the number of its first descriptor (u32), 0 or what broke it (u32).
        `descriptors` gets 16 bytes for each. Returns how many of both there are.
        """
        return self.door.walk(start & 0xFFFF, stop & 0xFFFF, bool(wrap), chains, descriptors)

    def validate(self) -> tuple[Breach, ...]:
        """Every breach of the virtio specification that the ring shows, with its section."""
        return tuple(breaches(self.memory, self.layout, self._known()))

    def _known(self) -> RingState | None:
        state = self.snapshot()
        return state if state.readable else None

    def _area(self, which: int) -> tuple[int, int]:
        layout = self.layout
        return (layout.desc, layout.driver, layout.device)[which], layout.sizes[which]

    def _only(self, kind: str, reason: str) -> None:
        if self.kind != kind:
            raise RingError(f"a {self.kind} ring {reason}", device=self.device, queue=self.queue)

    def __repr__(self) -> str:
        whose = f" {self.device} {self.name or f'queue {self.queue}'}" if self.device else ""
        try:
            now = str(self.snapshot())
        except ClosedError:
            now = "closed"
        return f"<Ring{whose}: {self.kind}, {self.size} entries, {now}>"


class Sampler:
    """Indexes of many rings in one call, into a buffer that the caller lends.

    The buffer has 8 bytes for each ring, in their order: avail and used index, chains in flight,
    and flags (u16 each; see pv_ring_sample). It begins as zeros, and stays the caller's.
    """

    def __init__(self, rings: Iterable[Ring]) -> None:
        self.rings = tuple(rings)
        self._door = Queues([ring.door for ring in self.rings])
        self.sample = self._door.sample

    @property
    def size(self) -> int:
        """Bytes that the buffer must have."""
        return 8 * len(self.rings)

    def __repr__(self) -> str:
        return f"<Sampler of {len(self.rings)} rings>"
