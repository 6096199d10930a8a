"""What a ring breaks of the specification: every breach, with its section of virtio 1.2.

This reads rings by other means than csrc/pv_vring.c does, slowly and to the end: where the one
stops at the first fault, the other lists them all.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Generator, Iterator, Sequence

from pyvirt.virtio.chaincheck import Table, chain, packed_indirect, split_indirect
from pyvirt.virtio.flight import held, ordered, windows
from pyvirt.virtio.layout import IN_ORDER, LARGEST, RingLayout
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.state import Breach, RingState

_AVAIL, _USED = 1 << 7, 1 << 15


def breaches(memory: GuestMemory, layout: RingLayout, state: RingState | None) -> Iterator[Breach]:
    """Every breach that the ring shows; `state` is what was last seen of it."""
    yield from _places(layout)
    copy = [memory.read(place, size) for place, size in _areas(layout)]
    if layout.packed:
        yield from _packed(memory, layout, copy, state)
    else:
        yield from _split(memory, layout, copy)


def _areas(layout: RingLayout) -> list[tuple[int, int]]:
    places = (layout.desc, layout.driver, layout.device)
    return list(zip(places, layout.sizes, strict=True))


def _places(layout: RingLayout) -> Iterator[Breach]:
    section = "2.8.11" if layout.packed else "2.7.1"
    aligned = (16, 4, 4) if layout.packed else (16, 2, 4)
    names = ("descriptor", "driver", "device")
    for name, (place, _), must in zip(names, _areas(layout), aligned, strict=True):
        if place % must:
            yield Breach(section, f"the {name} area is not aligned to {must} bytes", place)
    if not layout.packed and layout.size & (layout.size - 1):
        yield Breach("2.7", "the queue size is no power of two", found=layout.size,
                     expected=f"a power of two up to {LARGEST}")  # fmt: skip


# -- Split --------------------------------------------------------------------------------------


def _split(memory: GuestMemory, layout: RingLayout, copy: Sequence[bytes]) -> Iterator[Breach]:
    desc, driver, device = copy
    avail_flags, avail_idx = struct.unpack_from("<HH", driver)
    used_flags, used_idx = struct.unpack_from("<HH", device)
    size = layout.size
    avail = struct.unpack_from(f"<{size}H", driver, 4)
    used = struct.unpack_from("<" + "I4x" * size, device, 4)
    yield from _flags(layout, "2.7.7.1", "driver", avail_flags, layout.driver)
    yield from _flags(layout, "2.7.10.2", "device", used_flags, layout.device)
    count = (avail_idx - used_idx) & 0xFFFF
    if count > size:
        yield Breach("2.7", "more chains are in flight than the queue has entries",
                     layout.driver + 2, avail_idx, count, f"at most {size}")  # fmt: skip
        return
    given, taken = windows(avail, used, avail_idx, used_idx)
    yield from _named(layout, avail_idx, given)
    yield from _taken(layout, used_idx, count, given, taken)
    if layout.features & IN_ORDER:
        flight = ordered(size, avail_idx, used_idx, avail)
    else:
        flight = held(size, avail_idx, used_idx, given, taken)
    table = Table(desc, layout.desc, size, packed=False)
    owners: dict[int, int] = {}
    for head in flight.sure:
        if head < size:
            walked = yield from chain(memory, layout, table, head, split_indirect)
            yield from _shared(layout, owners, head, walked)


def _flags(layout: RingLayout, section: str, whose: str, flags: int, place: int
) -> Iterator[Breach]:  # fmt: skip
    if layout.event_idx and flags:
        yield Breach(section, f"the {whose} sets flags although RING_EVENT_IDX was agreed on",
                     place, found=flags, expected="0")  # fmt: skip
    elif flags > 1:
        yield Breach(section, f"the {whose} sets reserved flags", place, found=flags,
                     expected="0 or 1")  # fmt: skip


def _named(layout: RingLayout, index: int, given: Sequence[int]) -> Iterator[Breach]:
    for number, head in enumerate(given, index - len(given)):
        if head >= layout.size:
            place = layout.driver + 4 + 2 * (number % layout.size)
            yield Breach("2.7.6", "the avail ring names a descriptor that is not there", place,
                         number & 0xFFFF, head, f"below {layout.size}")  # fmt: skip


def _taken(
    layout: RingLayout, index: int, count: int, given: Sequence[int], taken: Sequence[int]
) -> Iterator[Breach]:  # fmt: skip
    """Used entries that name no chain which was in flight.

    Rings that went around forgot of each head when it was made available first, if they are
    seen from the same index on; and whether zeros are entries of head 0 cannot be told.
    """
    seen: Counter[int] = Counter()
    made = Counter(given)
    around = layout.size in (len(given), len(taken))
    if around:
        taken = taken[max(0, len(taken) + count - layout.size) :]
    for number, head in enumerate(taken, index - len(taken)):
        place = layout.device + 4 + 8 * (number % layout.size)
        seen[head] += 1
        if head >= layout.size:
            yield Breach("2.7.8", "the used ring names a descriptor that is not there", place,
                         number & 0xFFFF, head, f"below {layout.size}")  # fmt: skip
        elif layout.features & IN_ORDER:
            continue  # one entry tells of a batch, and the entries of the others stay as they were
        elif seen[head] > made[head] + (around or head == 0):
            yield Breach("2.7.8", "the device used a chain that was not in flight", place,
                         number & 0xFFFF, head)  # fmt: skip


def _shared(layout: RingLayout, owners: dict[int, int], head: int, slots: Sequence[int]
) -> Iterator[Breach]:  # fmt: skip
    for slot in slots:
        owner = owners.setdefault(slot, head)
        if owner != head:
            yield Breach("2.7.13.1", f"chains {owner} and {head} share a descriptor",
                         layout.desc + 16 * slot, slot)  # fmt: skip


# -- Packed -------------------------------------------------------------------------------------


def _packed(
    memory: GuestMemory, layout: RingLayout, copy: Sequence[bytes], state: RingState | None
) -> Iterator[Breach]:
    desc, driver, device = copy
    yield from _events(layout, "driver", driver, layout.driver)
    yield from _events(layout, "device", device, layout.device)
    table = Table(desc, layout.desc, layout.size, packed=True)
    yield from _laps(table)
    if state is not None and state.certain:
        yield from _lap_chains(memory, layout, table, state)


def _events(layout: RingLayout, whose: str, structure: bytes, place: int) -> Iterator[Breach]:
    event, flags = struct.unpack("<HH", structure)
    if flags & ~3:
        yield Breach("2.8.14", f"reserved bits of the {whose}'s event flags are set", place + 2,
                     found=flags)  # fmt: skip
    if flags & 3 == 3:
        yield Breach("2.8.10", f"the {whose}'s event flags are reserved", place + 2,
                     found=flags & 3, expected="0, 1 or 2")  # fmt: skip
    if flags & 3 == 2 and not layout.event_idx:
        yield Breach("2.8.10", f"the {whose} wants an event for one descriptor although "
                     "RING_EVENT_IDX was not agreed on", place + 2, found=2)  # fmt: skip
    if flags & 3 == 2 and event & 0x7FFF >= layout.size:
        yield Breach("2.8.10", f"the {whose}'s event is for a slot that is not there", place,
                     found=event & 0x7FFF, expected=f"below {layout.size}")  # fmt: skip


def _laps(table: Table) -> Iterator[Breach]:
    """The driver writes slot after slot, so its wrap bit changes once in the ring at most."""
    bits = [table.flags(slot) & _AVAIL for slot in range(table.size)]
    borders = [slot for slot in range(1, table.size) if bits[slot] != bits[slot - 1]]
    for slot in borders[1:]:
        yield Breach("2.8.1", "a slot's AVAIL bit is of another lap than the slots around it",
                     table.place(slot), slot, table.flags(slot))  # fmt: skip


def _lap_chains(
    memory: GuestMemory, layout: RingLayout, table: Table, state: RingState
) -> Generator[Breach, None, None]:
    """The chains between the device and the driver, slot after slot."""
    ids: dict[int, int] = {}
    slot, left = state.used_idx, state.in_flight
    while left > 0:
        walked = yield from chain(memory, layout, table, slot, packed_indirect)
        last = walked[-1] if walked else slot
        first = ids.setdefault(table.id(last), slot)
        # Out of order, chains that are done still stand between those that are not.
        if first != slot and layout.features & IN_ORDER:
            yield Breach("2.8.21.1", f"the chains in slots {first} and {slot} have the same id",
                         table.place(last), last, table.id(last))  # fmt: skip
        if len(walked) > left:
            yield Breach("2.8.6", "a chain goes on into slots that are not available",
                         table.place(slot), slot, len(walked), f"at most {left}")  # fmt: skip
        slot, left = (slot + len(walked)) % layout.size, left - max(1, len(walked))
