"""Parts become options: each gets a name, a place and its needs, cold or hot alike."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from attrs import frozen

from pyvirt.errors import SpecError
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Part
from pyvirt.qemu.topology import Topology


@frozen
class Placed:
    """A part with its name and place, the options that make it, and what they need.

    `ports` are the options of controllers that had to come first.
    """

    part: Part
    at: At
    ports: tuple[Option, ...]
    options: tuple[Option, ...]
    needs: tuple[Need, ...]

    @property
    def name(self) -> str:
        return self.at.name


class Composition:
    """All parts of one machine, by name, and the places they hold.

    It lives on beside a running VM, so that a part plugged later is made by the same lines
    as one that was there from the start.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.placed: dict[str, Placed] = {}

    def add(self, part: Part, source: str, *, plugged: bool = False) -> Placed:
        """Give `part` a name and a place. `source` is the field that holds it."""
        name = self._name(part, source)
        ports, at = self.topology.place(name, part.slot, plugged=plugged)
        placed = Placed(
            part,
            at,
            tuple(attrs.evolve(port, source=port.source or "topology") for port in ports),
            *sort(part.options(at), source),
        )
        self.placed[name] = placed
        return placed

    def remove(self, name: str) -> None:
        """Forget the part and give its place back."""
        self.placed.pop(name, None)
        self.topology.release(name)

    def _name(self, part: Part, source: str) -> str:
        if part.id is not None:
            if part.id in self.placed:
                raise SpecError(f"{source}.id", "must be unique in a VM", part.id)
            return part.id
        number = 0
        while f"{part.prefix}{number}" in self.placed:
            number += 1
        return f"{part.prefix}{number}"


def sort(
    items: Iterable[Option | Need], source: str
) -> tuple[tuple[Option, ...], tuple[Need, ...]]:
    """Options and needs apart; each option's source now begins with `source`."""
    options: list[Option] = []
    needs: list[Need] = []
    for item in items:
        if isinstance(item, Need):
            needs.append(item)
        else:
            own = f"{source}.{item.source}" if item.source else source
            options.append(attrs.evolve(item, source=own))
    return tuple(options), tuple(needs)
