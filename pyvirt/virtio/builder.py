"""Rings made by hand: a driver and a device that agree, and memory images to test others with."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

from pyvirt.errors import SpecError
from pyvirt.virtio.layout import EVENT_IDX, INDIRECT_DESC, RingLayout
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.ring import Ring
from pyvirt.virtio.state import INDIRECT, NEXT, WRITE, Descriptor

_AVAIL, _USED = 1 << 7, 1 << 15
_PAGE = 4096


class RingBuilder:
    """A ring in memory of its own, with a driver and a device that follow the specification.

        builder = RingBuilder("packed", 8)
        id = builder.publish(readable=[b"header"], writable=[512])
        builder.complete(id, b"answer")
        builder.ring().snapshot()

    `memory` is the image (a bytearray; the ring is at guest address `at`), for tests to change.
    `features` are bits or names. `start` is the index with which a split ring begins, so that
    it wraps around early. Buffers get memory behind the ring, up to `room` bytes.
    """

    def __init__(
        self,
        kind: str = "split",
        size: int = 8,
        *,
        at: int = _PAGE,
        features: int | Iterable[str] = ("RING_INDIRECT_DESC", "RING_EVENT_IDX", "VERSION_1"),
        start: int = 0,
        room: int = 1 << 20,
    ) -> None:
        self.layout = RingLayout.at(at, kind, size, features)
        if kind == "split" and size & (size - 1):
            raise SpecError("size", "of a split ring must be a power of two", size)
        self._free_memory = -(-self.layout.end // _PAGE) * _PAGE
        self.memory = bytearray(self._free_memory + room)
        self._free = list(range(size))
        self._chains: dict[int, list[int]] = {}
        self._buffers: dict[int, tuple[Descriptor, ...]] = {}
        self._avail = self._used = start if kind == "split" else 0
        if kind == "split":
            self._put("<H", self.layout.driver + 2, start & 0xFFFF)
            self._put("<H", self.layout.device + 2, start & 0xFFFF)

    @property
    def in_flight(self) -> tuple[int, ...]:
        """The ids of what was published and not completed, oldest first."""
        return tuple(self._chains)

    @property
    def free(self) -> int:
        """Entries that are left."""
        return len(self._free)

    @property
    def avail_idx(self) -> int:
        """What `RingState.avail_idx` must be."""
        return self._index(self._avail)

    @property
    def used_idx(self) -> int:
        """What `RingState.used_idx` must be."""
        return self._index(self._used)

    def _index(self, total: int) -> int:
        return total % self.layout.size if self.layout.packed else total & 0xFFFF

    def buffers(self, id: int) -> tuple[Descriptor, ...]:
        """The data descriptors of a chain in flight, without the flags that link them."""
        return self._buffers[id]

    def ring(self, **whose: Any) -> Ring:
        """A reader of it, of the memory as it is and as it will be."""
        return Ring(GuestMemory(self.memory), self.layout, **whose)

    def place(self, size: int) -> int:
        """The guest address of `size` bytes that nothing else has."""
        address = self._free_memory
        if address + size > len(self.memory):
            raise SpecError("room", f"must be above {len(self.memory)} bytes", size)
        self._free_memory += -(-size // 16) * 16
        return address

    def publish(
        self,
        readable: Sequence[bytes] = (),
        writable: Sequence[int] = (),
        *,
        indirect: bool = False,
    ) -> int:
        """Make a chain available: bytes for the device to read, sizes for it to write.

        Returns its id. `indirect` puts the descriptors into a table of their own.
        """
        descs = [Descriptor(self._store(data), len(data)) for data in readable]
        descs += [Descriptor(self.place(size), size, WRITE) for size in writable]
        if not descs:
            raise SpecError("readable", "or writable must have something", readable)
        entries = [self._table(descs)] if indirect else descs
        if len(entries) > len(self._free):
            raise SpecError("readable", f"and writable must fit into {self.free} entries", descs)
        id = self._publish_packed(entries) if self.layout.packed else self._publish_split(entries)
        self._buffers[id] = tuple(descs)
        return id

    def _store(self, data: bytes) -> int:
        address = self.place(len(data))
        self.memory[address : address + len(data)] = data
        return address

    def _table(self, descs: Sequence[Descriptor]) -> Descriptor:
        if not self.layout.features & INDIRECT_DESC:
            raise SpecError("indirect", "needs the feature RING_INDIRECT_DESC", True)
        address = self.place(16 * len(descs))
        for slot, desc in enumerate(descs):
            more = slot + 1 < len(descs) and not self.layout.packed
            flags = desc.flags | (NEXT if more else 0)
            self._desc(address + 16 * slot, desc, flags, slot + 1 if more else 0)
        return Descriptor(address, 16 * len(descs), INDIRECT)

    def _publish_split(self, entries: Sequence[Descriptor]) -> int:
        slots = [self._free.pop(0) for _ in entries]
        for place, (slot, desc) in enumerate(zip(slots, entries, strict=True)):
            more = place + 1 < len(slots)
            flags = desc.flags | (NEXT if more else 0)
            following = slots[place + 1] if more else 0
            self._desc(self.layout.desc + 16 * slot, desc, flags, following)
        entry = self.layout.driver + 4 + 2 * (self._avail % self.layout.size)
        self._put("<H", entry, slots[0])
        self._avail += 1
        self._put("<H", self.layout.driver + 2, self._avail & 0xFFFF)
        self._chains[slots[0]] = slots
        return slots[0]

    def _publish_packed(self, entries: Sequence[Descriptor]) -> int:
        """The first slot last, as 2.8.6 wants it."""
        id = next(id for id in count() if id not in self._chains)
        for place in reversed(range(len(entries))):
            at, lap = self._slot(self._avail + place)
            more = NEXT if place + 1 < len(entries) else 0
            flags = entries[place].flags | more | (_AVAIL if lap else _USED)
            self._desc(at, entries[place], flags, id)
        self._avail += len(entries)
        self._chains[id] = [self._free.pop() for _ in entries]
        return id

    def complete(self, id: int, data: bytes = b"") -> None:
        """Use the chain `id`: the device writes `data` into it, and says so."""
        slots = self._chains.pop(id)
        left = data
        for desc in self._buffers.pop(id):
            if desc.writable:
                piece, left = left[: desc.length], left[desc.length :]
                self.memory[desc.address : desc.address + len(piece)] = piece
        if left:
            raise SpecError("data", "must fit into the chain", len(data))
        if self.layout.packed:
            at, lap = self._slot(self._used)
            flags = (_AVAIL | _USED if lap else 0) | (WRITE if data else 0)
            self._desc(at, Descriptor(0, len(data)), flags, id)
            self._used += len(slots)
        else:
            entry = self.layout.device + 4 + 8 * (self._used % self.layout.size)
            self._put("<II", entry, id, len(data))
            self._used += 1
            self._put("<H", self.layout.device + 2, self._used & 0xFFFF)
        self._free += slots

    def events(self, used_event: int, avail_event: int) -> None:
        """Set the event indexes (packed: slot, bit 15 its lap)."""
        layout = self.layout
        if not layout.features & EVENT_IDX:
            raise SpecError("used_event", "needs the feature RING_EVENT_IDX", used_event)
        if layout.packed:
            self._put("<HH", layout.driver, used_event, 2)
            self._put("<HH", layout.device, avail_event, 2)
        else:
            self._put("<H", layout.driver + 4 + 2 * layout.size, used_event)
            self._put("<H", layout.device + 4 + 8 * layout.size, avail_event)

    def _slot(self, total: int) -> tuple[int, bool]:
        """The guest address of a packed slot, and the wrap counter of its lap."""
        lap, slot = divmod(total, self.layout.size)
        return self.layout.desc + 16 * slot, lap % 2 == 0

    def _desc(self, at: int, desc: Descriptor, flags: int, id: int) -> None:
        last = (id, flags) if self.layout.packed else (flags, id)
        self._put("<QIHH", at, desc.address, desc.length, *last)

    def _put(self, form: str, address: int, *values: int) -> None:
        struct.pack_into(form, self.memory, address, *values)

    def __repr__(self) -> str:
        return (
            f"<RingBuilder {self.layout.kind}, {self.layout.size} entries, "
            f"{len(self._chains)} in flight>"
        )
