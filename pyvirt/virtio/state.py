"""What one look at a ring, or a walk through it, finds: decoded when it is asked for."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import overload

from attrs import frozen

NEXT, WRITE, INDIRECT = 1, 2, 4

TORN, JUMPED, UNREADABLE, USED_KNOWN, AVAIL_WRAP, USED_WRAP = 1, 2, 4, 8, 16, 32

_STATE = struct.Struct("<8H")
_CHAIN = struct.Struct("<QQIHHII")
_DESC = struct.Struct("<QIHH")


class RingState:
    """The indexes of a ring at one moment (16 bytes, see pv_ring_state in csrc/pv_vring.h).

    Split rings: the indexes as they are in memory, modulo 65536. Packed rings, which have none:
    the slots where driver and device write next, and `in_flight` counts slots.
    """

    __slots__ = ("packed", "raw")

    def __init__(self, raw: bytes, packed: bool) -> None:
        self.raw, self.packed = raw, packed

    def _field(self, place: int) -> int:
        return self.raw[2 * place] | self.raw[2 * place + 1] << 8

    @property
    def avail_idx(self) -> int:
        """Where the driver makes the next chain available."""
        return self._field(0)

    @property
    def used_idx(self) -> int:
        """Where the device says next that it has used one."""
        return self._field(1)

    @property
    def in_flight(self) -> int:
        """How many chains (packed: slots) are between the two."""
        return self._field(2)

    @property
    def consistent(self) -> bool:
        """Whether all indexes are of one moment: the ring held still during one of 8 tries."""
        return not self._field(3) & (TORN | UNREADABLE)

    @property
    def certain(self) -> bool:
        """Whether `used_idx` is read and not guessed, which split rings never need."""
        return self.consistent and (not self.packed or bool(self._field(3) & USED_KNOWN))

    @property
    def broken(self) -> bool:
        """Whether more is in flight than the ring has entries."""
        return bool(self._field(3) & JUMPED)

    @property
    def untouched(self) -> bool:
        """Whether the driver never made a chain available, as far as it shows."""
        return self.readable and self.avail_idx == 0 == self.in_flight and self.avail_wrap != 0

    @property
    def readable(self) -> bool:
        """Whether the ring could be read at all."""
        return not self._field(3) & UNREADABLE

    @property
    def avail_wrap(self) -> int | None:
        """The driver's wrap counter; None for split rings."""
        return int(bool(self._field(3) & AVAIL_WRAP)) if self.packed else None

    @property
    def used_wrap(self) -> int | None:
        """The device's wrap counter; None for split rings."""
        return int(bool(self._field(3) & USED_WRAP)) if self.packed else None

    @property
    def avail_flags(self) -> int:
        """What the driver says about notifications to it: avail flags, or its event flags."""
        return self._field(4)

    @property
    def used_flags(self) -> int:
        """What the device says about notifications to it: used flags, or its event flags."""
        return self._field(5)

    @property
    def used_event(self) -> int:
        """The driver wants to be notified of this used index (packed: slot, bit 15 its lap)."""
        return self._field(6)

    @property
    def avail_event(self) -> int:
        """The device wants to be notified of this avail index (packed: slot, bit 15 its lap)."""
        return self._field(7)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RingState):
            return NotImplemented
        return self.raw == other.raw and self.packed == other.packed

    def __hash__(self) -> int:
        return hash(self.raw)

    def __str__(self) -> str:
        words = "" if self.consistent else ", torn"
        words += "" if self.certain or not self.consistent else ", used_idx guessed"
        words += ", broken" if self.broken else ""
        return (
            f"avail_idx {self.avail_idx}, used_idx {self.used_idx}, "
            f"{self.in_flight} in flight{words}"
        )

    def __repr__(self) -> str:
        return f"<RingState {self}>"


@frozen
class Descriptor:
    """`length` bytes from guest address `address` on; the device writes them if `writable`.

    `id` is the index of the next descriptor (split) or the id of the buffer (packed).
    """

    address: int
    length: int
    flags: int = 0
    id: int = 0

    @property
    def writable(self) -> bool:
        return bool(self.flags & WRITE)

    def __str__(self) -> str:
        return f"{self.address:#x}+{self.length:#x}" + ("w" if self.writable else "r")


class Chain(Sequence[Descriptor]):
    """The descriptors of one request, indirect tables resolved, as copied at one moment.

    `id` is its head (split) or its buffer's id (packed), `slots` how many entries of the
    descriptor area it takes, `readable` and `writable` bytes for the device.
    """

    __slots__ = ("_descs", "_length", "id", "readable", "slots", "writable")

    def __init__(self, record: bytes, descs: bytes | memoryview) -> None:
        length: int
        self.readable, self.writable, length, self.slots, self.id, _, _ = _CHAIN.unpack(record)
        self._length, self._descs = length, descs

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Descriptor: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Descriptor, ...]: ...
    def __getitem__(self, index: int | slice) -> Descriptor | tuple[Descriptor, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(self._length)[index])
        return Descriptor(*_DESC.unpack_from(self._descs, 16 * range(self._length)[index]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Chain):
            return NotImplemented
        return self.id == other.id and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((self.id, self._length))

    def __repr__(self) -> str:
        return (
            f"<Chain {self.id}: {self._length} descriptors, "
            f"{self.readable} bytes to read, {self.writable} to write>"
        )


@frozen
class Used:
    """The device has used chain `id` and wrote `length` bytes."""

    id: int
    length: int


@frozen
class InFlight:
    """The ids of chains that the device has and has not used, oldest first.

    `count` is how many there are by the indexes (packed: slots), which can be more: a chain that
    the device took long ago may have left the rings. `certain` is False where other chains could
    be meant as well, or where the ring moved while it was copied. Of `sure` it is known all the
    same, if it did not move.
    """

    ids: tuple[int, ...]
    count: int
    certain: bool = True
    sure: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@frozen
class Breach:
    """A breach of `section` of virtio 1.2: `found` at guest address `place`, not `expected`."""

    section: str
    reason: str
    place: int | None = None
    index: int | None = None
    found: int | None = None
    expected: str | None = None

    def __str__(self) -> str:
        facts = [
            "" if self.index is None else f" (index {self.index})",
            "" if self.place is None else f" at guest address {self.place:#x}",
            "" if self.found is None else f", found {self.found}",
            "" if self.expected is None else f", expected {self.expected}",
        ]
        return f"virtio 1.2, {self.section}: {self.reason}{''.join(facts)}"
