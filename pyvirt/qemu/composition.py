"""Parts become options: each gets a name, a place and its needs, cold or hot alike."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import attrs
from attrs import frozen

from pyvirt.errors import SpecError
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import Adjusted, At, Part
from pyvirt.qemu.topology import Topology, rank
from pyvirt.qmp.flow import Command


@frozen
class Placed:
    """A part with its name and place, the options that make it, and what they need.

    `ports` are the options of controllers that had to come first; `source` is the field of
    the VM that holds the part.
    """

    part: Part
    at: At
    ports: tuple[Option, ...]
    options: tuple[Option, ...]
    needs: tuple[Need, ...]
    source: str = ""

    @property
    def name(self) -> str:
        return self.at.name

    def device_property(self, name: str) -> Any:
        """Property `name` of the part's own device; None when it has none."""
        for option in self.options:
            if option.kind == "device" and option.id == self.name:
                assert isinstance(option.properties, Mapping)
                return option.properties.get(name)
        return None

    @property
    def adjustments(self) -> tuple[Command, ...]:
        """What QEMU is told once the part is there, before the guest goes on."""
        return tuple(self.part.adjustments(self.at)) if isinstance(self.part, Adjusted) else ()


class Composition:
    """All parts of one machine, by name, and the places they hold.

    It lives on beside a running VM, so that a part plugged later is made by the same lines
    as one that was there from the start. Several threads may plug at once.
    """

    def __init__(self, topology: Topology, vm: str = "") -> None:
        self.topology, self.vm = topology, vm
        self.placed: dict[str, Placed] = {}
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def add_all(self, parts: Iterable[tuple[Part, str]]) -> Iterator[Placed]:
        """Place parts that are there from the start, each with the field that holds it.

        Names follow the order given; whose place is pinned is placed first.
        """
        parts = list(parts)
        names = {source: self._claim(part, source) for part, source in parts if part.id}
        for part, source in sorted(parts, key=lambda item: rank(item[0].slot)):
            name = names.get(source) or self._claim(part, source)
            yield self._place(name, part, source, plugged=False)

    def plug(self, part: Part, source: str) -> Placed:
        """Place one more part on the running machine."""
        if not part.slot.unpluggable:
            raise SpecError("part", "must be one that can be plugged while the guest runs", part)
        with self._lock:
            return self._place(self._claim(part, source), part, source, plugged=True)

    def remove(self, placed: Placed, *, ports: bool = False) -> None:
        """Forget a part and give its place back; with `ports`, those made for it too."""
        with self._lock:
            self._forget(placed.name)
            for option in placed.ports if ports else ():
                self.topology.release(option.id)

    def _forget(self, name: str) -> None:
        self.placed.pop(name, None)
        self._names.discard(name)
        self.topology.release(name)

    def _place(self, name: str, part: Part, source: str, *, plugged: bool) -> Placed:
        try:
            ports, place = self.topology.place(name, part.slot, plugged=plugged)
        except SpecError as error:  # The name may be another's, which keeps its place.
            self._names.discard(name)
            raise error.inside(source) from None
        at = attrs.evolve(place, vm=self.vm)
        try:
            options, needs = sort(part.options(at), source)
        except SpecError as error:
            self._forget(name)
            for port in ports:
                self.topology.release(port.id)
            raise error.inside(source) from None
        for option in options:
            if option.id == name and isinstance(option.properties, Mapping):
                self.topology.offer(name, option.properties)
        made = tuple(attrs.evolve(port, source=f"{source} (topology)") for port in ports)
        self.placed[name] = Placed(part, at, made, options, needs, source)
        return self.placed[name]

    def _claim(self, part: Part, source: str) -> str:
        name = part.id if part.id is not None else self._fresh(part.prefix)
        if name in self._names:
            raise SpecError(f"{source}.id", "must be unique in a VM", name)
        self._names.add(name)
        return name

    def _fresh(self, prefix: str) -> str:
        return next(
            name for number in count() if (name := f"{prefix}{number}") not in self._names
        )


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
