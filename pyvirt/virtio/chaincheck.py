"""One chain of descriptors, against virtio 1.2: everything that is wrong with it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator

from pyvirt.virtio.layout import IN_ORDER, INDIRECT_DESC, RingLayout
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.state import INDIRECT, NEXT, WRITE, Breach, Descriptor

_SPLIT = NEXT | WRITE | INDIRECT
_PACKED = _SPLIT | 1 << 7 | 1 << 15

#: Checks what an indirect descriptor leads to, and returns the descriptors there.
Indirect = Callable[
    [GuestMemory, RingLayout, Descriptor, int],
    Generator[Breach, None, list[tuple[int, Descriptor]]],
]


class Table:
    """A copy of a table of descriptors that is at guest address `address`."""

    def __init__(self, copy: bytes, address: int, size: int, *, packed: bool) -> None:
        self._copy, self._address = copy, address
        self.size, self.packed = size, packed

    def __getitem__(self, slot: int) -> Descriptor:
        address, length, third, fourth = struct.unpack_from("<QIHH", self._copy, 16 * slot)
        flags, id = (fourth, third) if self.packed else (third, fourth)
        return Descriptor(address, length, flags, id)

    def flags(self, slot: int) -> int:
        return self[slot].flags

    def id(self, slot: int) -> int:
        return self[slot].id

    def place(self, slot: int) -> int:
        """Its guest address."""
        return self._address + 16 * slot


def chain(
    memory: GuestMemory, layout: RingLayout, table: Table, head: int, indirect: Indirect
) -> Generator[Breach, None, list[int]]:
    """What is wrong with the chain of `head`. Returns the slots that it takes."""
    slots: dict[int, None] = {}  # in their order
    found: list[tuple[int, Descriptor]] = []
    slot: int | None = head
    while slot is not None:
        slots[slot] = None
        desc, place = table[slot], table.place(slot)
        yield from _flags(layout, table, slot, bool(len(slots) > 1))
        if desc.flags & INDIRECT:
            found += yield from indirect(memory, layout, desc, place)
        else:
            found.append((place, desc))
        following = yield from _next(table, slots, slot, desc, place, "2.7.5")
        if layout.features & IN_ORDER and not table.packed:
            behind = (slot + 1) % table.size
            yield from _in_turn(following, slot, behind, place, "2.7.5.2")
        slot = following
    yield from _buffers(memory, layout, found)
    return list(slots)


def _flags(layout: RingLayout, table: Table, slot: int, linked: bool) -> Iterator[Breach]:
    flags, place = table.flags(slot), table.place(slot)
    rules = "2.8.19" if layout.packed else "2.7.5.3.1"
    reserved = flags & ~(_PACKED if layout.packed else _SPLIT)
    if reserved:
        section = "2.8.13" if layout.packed else "2.7.5"
        yield Breach(section, "a descriptor has reserved flags", place, slot, reserved)
    if not flags & INDIRECT:
        return
    if layout.features and not layout.features & INDIRECT_DESC:
        reason = "a descriptor is indirect although RING_INDIRECT_DESC was not agreed on"
        yield Breach(rules, reason, place, slot, flags)
    if flags & NEXT or (layout.packed and linked):
        yield Breach(rules, "an indirect descriptor is linked to others by NEXT", place, slot,
                     flags)  # fmt: skip


def _in_turn(
    following: int | None, slot: int, expected: int, place: int, section: str
) -> Iterator[Breach]:
    if following not in (None, expected):
        yield Breach(section, "a chain jumps although IN_ORDER was agreed on", place, slot,
                     following, str(expected))  # fmt: skip


def _next(
    table: Table, slots: dict[int, None], slot: int, desc: Descriptor, place: int, section: str
) -> Generator[Breach, None, int | None]:
    """The slot after this one, or None where the chain ends, well or not."""
    if not desc.flags & NEXT or desc.flags & INDIRECT:
        return None
    following = (slot + 1) % table.size if table.packed else desc.id
    if following >= table.size:
        yield Breach(section, "a chain goes on with a descriptor that is not there", place,
                     slot, following, f"below {table.size}")  # fmt: skip
        return None
    if following in slots:
        yield Breach("2.8.17" if table.packed else "2.7.5.2", "a chain loops", place, slot,
                     following)  # fmt: skip
        return None
    return following


def split_indirect(
    memory: GuestMemory, layout: RingLayout, desc: Descriptor, place: int
) -> Generator[Breach, None, list[tuple[int, Descriptor]]]:
    """A table whose descriptors are linked by NEXT (virtio 1.2, 2.7.5.3)."""
    table = yield from _table(memory, desc, place, "2.7.5.3", packed=False)
    found: list[tuple[int, Descriptor]] = []
    seen: dict[int, None] = {}
    slot: int | None = 0 if table is not None else None
    while slot is not None and table is not None:
        one, at = table[slot], table.place(slot)
        seen[slot] = None
        found.append((at, one))
        if one.flags & INDIRECT:
            yield Breach("2.7.5.3.1", "an indirect table holds another", at, slot, one.flags)
        following = yield from _next(table, seen, slot, evolved(one), at, "2.7.5.3")
        if layout.features & IN_ORDER:
            yield from _in_turn(following, slot, slot + 1, at, "2.7.5.3.1")
        slot = following
    return found


def packed_indirect(
    memory: GuestMemory, layout: RingLayout, desc: Descriptor, place: int
) -> Generator[Breach, None, list[tuple[int, Descriptor]]]:
    """A table whose descriptors are all used, in turn (virtio 1.2, 2.8.7)."""
    table = yield from _table(memory, desc, place, "2.8.7", packed=True)
    found = [(table.place(slot), table[slot]) for slot in range(table.size)] if table else []
    for slot, (at, one) in enumerate(found):
        if one.flags & ~WRITE:
            yield Breach("2.8.19", "a descriptor in an indirect table has other flags than WRITE",
                         at, slot, one.flags)  # fmt: skip
    return found


def evolved(desc: Descriptor) -> Descriptor:
    """The same without INDIRECT: in a table, it is followed all the same."""
    return Descriptor(desc.address, desc.length, desc.flags & ~INDIRECT, desc.id)


def _table(
    memory: GuestMemory, desc: Descriptor, place: int, section: str, *, packed: bool
) -> Generator[Breach, None, Table | None]:
    if desc.length == 0 or desc.length % 16:
        yield Breach(section, "an indirect table has an impossible length", place,
                     found=desc.length, expected="a multiple of 16")  # fmt: skip
    size = desc.length // 16
    if memory.door.reach(desc.address, 16 * size) < 16 * size:
        yield Breach(section, "an indirect table is not in guest memory", place,
                     found=desc.address)  # fmt: skip
        return None
    if size == 0 or size > 32768:
        return None
    return Table(memory.read(desc.address, 16 * size), desc.address, size, packed=packed)


def _buffers(
    memory: GuestMemory, layout: RingLayout, found: list[tuple[int, Descriptor]]
) -> Iterator[Breach]:
    section = "2.8.4" if layout.packed else "2.7.5"
    written = False
    for place, desc in found:
        if memory.door.reach(desc.address, desc.length) < desc.length:
            yield Breach(section, "a descriptor points outside guest memory", place,
                         found=desc.address)  # fmt: skip
        if written and not desc.writable:
            yield Breach("2.8.17" if layout.packed else "2.7.4.2",
                         "a readable descriptor follows a writable one", place)  # fmt: skip
        written = written or desc.writable
    yield from _whole(layout, found)


def _whole(layout: RingLayout, found: list[tuple[int, Descriptor]]) -> Iterator[Breach]:
    if len(found) > layout.size:
        yield Breach("2.8.17" if layout.packed else "2.7.5.3.1",
                     "a chain is longer than the queue size", found[0][0], found=len(found),
                     expected=f"at most {layout.size}")  # fmt: skip
    total = sum(desc.length for _, desc in found)
    if not layout.packed and total > 1 << 32:
        yield Breach("2.7.5.2", "a chain has more than 2^32 bytes", found[0][0], found=total)
