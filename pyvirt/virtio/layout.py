"""Where a virtqueue is in guest memory, and what was agreed about it."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field

from pyvirt.fields import between, choice, frozen
from pyvirt.virtio import features

#: Entries that a ring has at most (virtio 1.2, 2.7 and 2.8.10.1).
LARGEST = 32768

EVENT_IDX = 1 << 29
INDIRECT_DESC = 1 << 28
IN_ORDER = 1 << 35
PACKED = 1 << 34

_address = between(0, (1 << 64) - 1)


def _bits(value: int | Iterable[str]) -> int:
    """Feature bits, from themselves or from names of ring features ("RING_EVENT_IDX")."""
    if isinstance(value, int):
        return value
    bits = 0
    for name in value:
        bits |= features.bit("", name)
    return bits


@frozen
class RingLayout:
    """A ring of `size` entries and the guest addresses of its three areas.

    `desc` is the descriptor area; `driver` and `device` are what the driver and the device write
    to: the avail and the used ring of a split ring, the event suppression structures of a packed
    one. `features` are the bits that both sides agreed on, or names of them.
    """

    kind: str = field(validator=choice("split", "packed"))
    size: int = field(validator=between(1, LARGEST))
    desc: int = field(validator=_address)
    driver: int = field(validator=_address)
    device: int = field(validator=_address)
    features: int = field(default=0, converter=_bits, validator=_address)

    @classmethod
    def at(
        cls, address: int, kind: str = "split", size: int = 256, features: int | Iterable[str] = 0
    ) -> RingLayout:
        """The three areas one behind the other from `address` on, each aligned as it must be."""
        bits = _bits(features) | (PACKED if kind == "packed" else 0)
        driver = address + 16 * size
        device = driver + (4 if kind == "packed" else 4 + 2 * size + 2)
        return cls(kind, size, address, driver, device + -device % 4, bits)

    @property
    def packed(self) -> bool:
        return self.kind == "packed"

    @property
    def event_idx(self) -> bool:
        """Whether event indexes say when to notify (RING_EVENT_IDX)."""
        return bool(self.features & EVENT_IDX)

    @property
    def names(self) -> tuple[str, ...]:
        """The agreed features of rings and transports, by their names."""
        return tuple(n for n in features.names("", self.features) if not n.startswith("bit "))

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of the descriptor, driver and device area (virtio 1.2, 2.7 and 2.8.10.1)."""
        if self.packed:
            return 16 * self.size, 4, 4
        event = 2 if self.event_idx else 0
        return 16 * self.size, 4 + 2 * self.size + event, 4 + 8 * self.size + event

    @property
    def end(self) -> int:
        """The first guest address behind all three areas."""
        places = (self.desc, self.driver, self.device)
        return max(place + size for place, size in zip(places, self.sizes, strict=True))
