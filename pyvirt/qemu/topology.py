"""Finds a place for every part of a machine, and makes the controllers this takes.

It is pure: places are computed, and what has to exist first comes back as options. The
same parts in the same order get the same places, and each group of parts has a region of
its own, so one more disk moves no network card. Parts whose places are pinned come first
(`rank`), so that nothing sits there by chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from attrs import define, evolve, field, frozen

from pyvirt.errors import SpecError
from pyvirt.qemu.buses import (
    ALIASES,
    CONTROLLERS,
    DEFAULTS,
    FIXED,
    KEYS,
    PREFIXES,
    Companion,
    Controller,
)
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot
from pyvirt.qemu.pci import MICROVM, PC, Q35, Bridge, Plan, Seat, Seating, address, conventional


class Board(Protocol):
    """What the topology asks a machine."""

    @property
    def family(self) -> str:
        """pc, q35, microvm or none."""

    @property
    def hotplug_ports(self) -> int:
        """Root ports kept free for what is plugged later (q35)."""

    @property
    def hotplug_bridge(self) -> bool:
        """Whether a conventional bus is kept for what is plugged later (q35)."""

    @property
    def pcie(self) -> bool:
        """Whether a microvm has PCI Express."""

    @property
    def transports(self) -> int:
        """How many virtio-mmio transports a microvm has."""


@frozen
class _Host:
    """A controller that is there: built in, made, or described by the user."""

    id: str
    model: Controller
    parent: str = ""
    alone: bool = False

    def places(self, slot: Slot) -> Iterator[dict[str, Any]]:
        for place in self.model.places(self.id, self.parent, slot.driver):
            yield {**place, **slot.address}


_PLANS: Mapping[str, Plan] = {"pc": PC, "q35": Q35}

_Key = tuple[str, ...]


def rank(slot: Slot) -> int:
    """The order in which parts should be placed: pinned ones, then controllers, then others."""
    if slot.bus == "pci" and slot.address:
        return 0
    if slot.driver in CONTROLLERS:
        return 1
    return 2 if slot.address else 3


@define
class Topology:
    """The places of one machine: who has which, and what is free.

    To plug something that may be refused, place it on a `copy` and keep that when all went
    well: a half-done plug then leaves nothing behind.
    """

    board: Board
    _pci: Seating | None = field(default=None)
    _ids: dict[str, str] = field(factory=dict)
    _taken: dict[_Key, str] = field(factory=dict)
    _hosts: list[_Host] = field(factory=list)
    _seats: dict[str, Seat] = field(factory=dict)
    _keys: dict[str, _Key] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self._ids:  # a copy
            return
        plan = MICROVM if self.board.pcie else _PLANS.get(self.board.family)
        self._pci = Seating(plan) if plan is not None else None
        self._hosts = list(_builtin(self.board.family))
        self._ids = {"": "nobody"} | {host.id: "the machine" for host in self._hosts}

    def copy(self) -> Topology:
        """An equal topology, to try something on. The other stays as it is."""
        return evolve(
            self,
            pci=self._pci.copy() if self._pci is not None else None,
            ids=dict(self._ids),
            taken=dict(self._taken),
            hosts=list(self._hosts),
            seats=dict(self._seats),
            keys=dict(self._keys),
        )

    def spares(self) -> tuple[Option, ...]:
        """The ports and bridges kept free for what is plugged later; ask once, at the start."""
        if self._pci is None or self.board.family != "q35":
            return ()
        wanted: list[Bridge] = list(self._pci.plan.spares()[: self.board.hotplug_ports])
        if self.board.hotplug_bridge:
            wanted += self._pci.plan.bridges["spill"]
        return tuple(option for bridge in wanted for option in self._make(bridge))

    def place(
        self, name: str, slot: Slot, *, plugged: bool = False
    ) -> tuple[tuple[Option, ...], At]:
        """A place for part `name`, after the options for what has to exist first.

        `plugged` is for a running guest, where only some buses take more. Raises
        `SpecError` when nothing is free, or when a pinned place is held by another.
        """
        self._register(name, "another part")
        try:
            made, at = self._place(name, slot, plugged)
        except SpecError:
            del self._ids[name]
            raise
        if slot.driver in CONTROLLERS:
            model = CONTROLLERS[slot.driver].given({})
            self._hosts.append(_Host(name, model, str(at.place.get("bus", ""))))
        return made, at

    def offer(self, name: str, properties: Mapping[str, Any]) -> None:
        """Controller `name` was made with `properties`, which may say how many places it has."""
        for number, host in enumerate(self._hosts):
            if host.id == name:
                self._hosts[number] = evolve(host, model=host.model.given(properties))

    def release(self, name: str) -> None:
        """Part `name` is gone: its place is free. Controllers that were made for it stay."""
        self._ids.pop(name, None)
        self._hosts = [host for host in self._hosts if host.id != name]
        key = self._keys.pop(name, None)
        if key is not None:
            del self._taken[key]
        seat = self._seats.pop(name, None)
        if seat is not None and self._pci is not None:
            del self._pci.taken[seat.key]

    def _place(self, name: str, slot: Slot, plugged: bool) -> tuple[tuple[Option, ...], At]:
        if slot.bus == "":
            return (), At(name, slot.address)
        if plugged and slot.bus in FIXED:
            raise SpecError("bus", "takes nothing while the guest runs", slot.bus)
        if slot.bus == "pci":
            return self._on_pci(name, slot, plugged)
        if slot.bus == "isa":
            return (), At(name, self._on_isa(name, slot))
        if slot.bus in KEYS:
            return self._on_controller(name, slot, plugged)
        raise SpecError("bus", f"must be one of pci, isa, {', '.join(KEYS)}", slot.bus)

    def _register(self, id: str, what: str) -> None:
        if id in self._ids:
            raise SpecError("id", f"is taken by {self._ids[id]}", id)
        self._ids[id] = what

    # PCI and its stand-in on a microvm

    def _on_pci(self, name: str, slot: Slot, plugged: bool) -> tuple[tuple[Option, ...], At]:
        if self.board.family == "microvm" and _virtio(slot.driver):
            place = self._on_mmio(name, slot, plugged)
            return (), At(name, place, "mmio")
        made, seat = self._seat(name, slot, plugged)
        return made, At(name, {**seat.place, **slot.address})

    def _seat(self, name: str, slot: Slot, plugged: bool) -> tuple[tuple[Option, ...], Seat]:
        pci = self._pci
        if pci is None:
            raise SpecError("bus", f"is not there on machine {self.board.family}", "pci")
        if plugged and self.board.family == "microvm":
            raise SpecError("bus", "takes nothing while a microvm runs", "pci")
        seat = pci.pinned(slot.address) if slot.address else pci.choose(slot, plugged)
        if seat is None:
            raise SpecError("bus", _full(slot, plugged), "pci")
        if slot.address:
            made = pci.pin(seat, name, bool(slot.address.get("multifunction")))
        else:
            made = pci.sit(seat, name)
        self._seats[name] = seat
        return self._known(made), seat

    def _make(self, bridge: Bridge) -> tuple[Option, ...]:
        return self._known(self._pci.make(bridge)) if self._pci is not None else ()

    def _known(self, made: tuple[Option, ...]) -> tuple[Option, ...]:
        for option in made:
            self._register(option.id, "the PCI topology")
        return made

    def _on_mmio(self, name: str, slot: Slot, plugged: bool) -> Mapping[str, Any]:
        if plugged:
            raise SpecError("bus", "takes nothing while a microvm runs", "virtio-mmio")
        if "bus" in slot.address:
            return self._claim(name, slot.bus, slot.address)
        numbers = list(_transports(self.board.transports, slot.group))
        for number in numbers:
            place = {"bus": f"virtio-mmio-bus.{number}"}
            if _key("pci", place) not in self._taken:
                return self._claim(name, slot.bus, place)
        raise SpecError("bus", f"has only {len(numbers)} transports", "virtio-mmio")

    def _on_isa(self, name: str, slot: Slot) -> Mapping[str, Any]:
        if self.board.family == "none":
            raise SpecError("bus", "is not there on machine none", "isa")
        if "iobase" in slot.address:
            self._claim(name, f"isa port {slot.address['iobase']}", {})
        return slot.address

    # Buses behind a controller

    def _on_controller(
        self, name: str, slot: Slot, plugged: bool
    ) -> tuple[tuple[Option, ...], At]:
        if "bus" in slot.address:
            return (), At(name, self._claim(name, slot.bus, slot.address))
        for host in self._willing(slot):
            place = next((p for p in host.places(slot) if _key(slot.bus, p) not in self._taken), {})
            if place:
                return (), At(name, self._claim(name, slot.bus, place))
            if slot.address or host.id == slot.controller:
                self._claim(name, slot.bus, next(host.places(slot)))
        made, host = self._new_host(name, slot, plugged)
        return made, At(name, self._claim(name, slot.bus, next(host.places(slot))))

    def _claim(self, name: str, bus: str, place: Mapping[str, Any]) -> Mapping[str, Any]:
        key = _key(bus, place)
        if key in self._taken:
            raise SpecError("address", f"of {name} is held by {self._taken[key]}", dict(place))
        self._taken[key] = name
        self._keys[name] = key
        return place

    def _willing(self, slot: Slot) -> Iterator[_Host]:
        """The controllers that `slot` may share."""
        model = ALIASES.get(slot.controller, slot.controller)
        for host in self._hosts:
            if host.model.bus != slot.bus:
                continue
            shareable = not host.alone and not slot.alone
            if host.id == slot.controller or (shareable and model in ("", host.model.model)):
                yield host

    def _new_host(
        self, name: str, slot: Slot, plugged: bool
    ) -> tuple[tuple[Option, ...], _Host]:
        model = self._model(slot)
        alike = [host for host in self._hosts if host.model.bus == slot.bus]
        if model.limit is not None and len(alike) >= model.limit:
            raise SpecError("bus", f"has no free place: all {model.count} are taken", slot.bus)
        id = self._fresh(slot.bus)
        self._register(id, f"the controller made for {name}")
        try:
            made, parent = self._controller(id, model, slot, plugged)
        except SpecError:
            del self._ids[id]
            raise
        host = _Host(id, model, parent, slot.alone)
        self._hosts.append(host)
        return made, host

    def _model(self, slot: Slot) -> Controller:
        wanted = ALIASES.get(slot.controller, slot.controller) or DEFAULTS[slot.bus]
        if self.board.family == "microvm" and wanted.startswith("virtio-"):
            wanted = wanted.removesuffix("-pci").removesuffix("-device") + "-device"
        model = CONTROLLERS.get(wanted)
        if model is None or model.bus != slot.bus:
            known = ", ".join(m.model for m in CONTROLLERS.values() if m.bus == slot.bus)
            reason = f"is no {slot.bus} controller of this machine; models are {known}"
            raise SpecError("controller", reason, slot.controller)
        return model

    def _controller(
        self, id: str, model: Controller, slot: Slot, plugged: bool
    ) -> tuple[tuple[Option, ...], str]:
        """The options that make controller `id`, and the bus that it sits on."""
        if not model.pci:
            self._on_isa(id, Slot("isa"))
            return (_device(model.model, id, {}, model.properties),), "isa.0"
        group = slot.group if slot.alone else "controller"
        own = Slot("pci", group=group, driver=model.model, unpluggable=slot.alone or plugged)
        before, at = self._on_pci(id, own, plugged)
        parent = str(at.place["bus"])
        if model.companions:
            return (*before, *self._family(id, model, at)), parent
        return (*before, _device(model.model, id, at.place, model.properties)), parent

    def _family(self, id: str, model: Controller, at: At) -> Iterator[Option]:
        """A USB 2 controller and its companions for slow devices, as functions of one slot."""
        slot = int(str(at.place["addr"]), 16)

        def place(function: int) -> dict[str, Any]:
            return {"bus": at.place["bus"], "addr": address(slot, function)}

        multifunction = {"multifunction": True}
        yield _device(model.model, id, place(model.function), multifunction)
        for companion in model.companions:
            extra = {} if companion.function else multifunction
            yield _companion(companion, id, place(companion.function), extra)

    def _fresh(self, bus: str) -> str:
        number = sum(host.model.bus == bus for host in self._hosts)
        while f"{PREFIXES[bus]}{number}" in self._ids:
            number += 1
        return f"{PREFIXES[bus]}{number}"


def _builtin(family: str) -> Iterator[_Host]:
    """The controllers that a board has by itself; QEMU names their buses so."""
    if family == "pc":
        yield _Host("ide", CONTROLLERS["piix3-ide"], "pci.0")
        yield _Host("floppy-bus", CONTROLLERS["isa-fdc"], "isa.0")
    elif family == "q35":
        yield _Host("ide", CONTROLLERS["ich9-ahci"], "pcie.0")


def _device(
    driver: str, id: str, place: Mapping[str, Any], properties: Mapping[str, Any]
) -> Option:
    return Option("device", {"driver": driver, "id": id, **place, **properties})


def _companion(
    companion: Companion, master: str, place: Mapping[str, Any], extra: Mapping[str, Any]
) -> Option:
    properties = {"masterbus": f"{master}.0", "firstport": companion.firstport, **extra}
    return _device(companion.driver, f"{master}-uhci{companion.function + 1}", place, properties)


def _key(bus: str, place: Mapping[str, Any]) -> _Key:
    fields = (str(place.get(name, 0)) for name in KEYS.get(bus, ()))
    return (str(place.get("bus", bus)), *fields)


# Virtio devices that exist for PCI only.
_PCI_ONLY = ("virtio-vga", "virtio-mem", "virtio-pmem", "virtio-iommu")


def _virtio(driver: str) -> bool:
    """Whether a device can sit on a virtio-mmio transport; one that names no driver may."""
    return not driver or (
        driver.startswith(("virtio-", "vhost-"))
        and not driver.startswith(_PCI_ONLY)
        and not driver.endswith("transitional")
    )


#: How many transports a microvm has with one interrupt controller.
_FEW = 8


def _transports(count: int, group: str) -> Iterator[int]:
    """The transports of a microvm, those of the group's region first.

    With a second interrupt controller the first one is left out: its interrupt is that
    controller's pin 0, which QEMU takes for the PC's timer and leads to pin 2
    (`ioapic_set_irq` in hw/intc/ioapic.c), so no guest hears of what sits there.
    """
    first = 0 if count == _FEW else 1
    half, quarter = count // 2, count // 4
    regions = {"disk": range(first, half), "nic": range(half, half + quarter)}
    region = regions.get(group, range(half + quarter, count))
    yield from region
    yield from (number for number in range(first, count) if number not in region)


def _full(slot: Slot, plugged: bool) -> str:
    if not plugged:
        return "has no free slot left on this machine"
    if conventional(slot.driver):
        return "has no free conventional slot to plug into; see Machine(hotplug_bridge=True)"
    return "has no free root port to plug into; see Machine(hotplug_ports=...)"
