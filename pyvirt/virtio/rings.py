"""The virtqueues of one machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Self

from pyvirt.errors import PyvirtError
from pyvirt.virtio.ring import Ring


class Rings(tuple[Ring, ...]):
    """Virtqueues, device by device and in their order, as they were set up at one moment.

    Devices whose rings cannot be read are not in it: `unreadable` has their ids, and for each
    the error that asking for it by its name raises.
    """

    unreadable: Mapping[str, PyvirtError]

    def __new__(
        cls, rings: Iterable[Ring] = (), unreadable: Mapping[str, PyvirtError] | None = None
    ) -> Self:
        self = super().__new__(cls, rings)
        self.unreadable = MappingProxyType(dict(unreadable or {}))
        return self

    def __repr__(self) -> str:
        """A line for each ring that was ever used: most of a machine's never are."""
        return "\n  ".join([f"<Rings: {len(self)}", *self._lines()]) + ">"

    def _lines(self) -> Iterator[str]:
        idle: Counter[str] = Counter()
        for ring in self:
            if ring.untouched:
                idle[ring.device or ""] += 1
            else:
                yield repr(ring).removeprefix("<Ring ").removesuffix(">")
        for device, count in idle.items():
            yield f"{device}: {count} never used".removeprefix(": ")
        for device, error in self.unreadable.items():
            yield f"{device}: {error}"
