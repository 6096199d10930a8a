"""From a `VM` to the options QEMU is given and the needs behind them: pure, starts nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs
from attrs import frozen

from pyvirt.agreement import check, has_tpm
from pyvirt.boot import APART, GuestImage, guest_options, guest_words
from pyvirt.devices import (
    Piped,
    Serial,
    VirtioSerialPort,
)
from pyvirt.guest import Guest
from pyvirt.machine import OVMF
from pyvirt.qemu.composition import Composition, Placed, sort
from pyvirt.qemu.need import Need, Socketpair
from pyvirt.qemu.option import Late, Option
from pyvirt.qemu.part import Part
from pyvirt.qemu.topology import Topology
from pyvirt.qmp.flow import Command

if TYPE_CHECKING:
    from pyvirt.vm import VM

Piece = tuple[Iterable[Option | Need], str]

MONITOR = "monitor"

#: The virtio-serial port names of the agents a guest may have.
PORTS = {"pyvirt": "org.pyvirt.agent.0", "qga": "org.qemu.guest_agent.0"}

#: QEMU's TCG buffer in MiB: its default lets QEMU grow to 1.5 GiB for any guest.
TB_SIZE = 128


@frozen
class Plan:
    """All that a start needs: `options` for QEMU, `needs` to acquire before.

    `adjustments` are commands that must reach QEMU before the guest's first instruction.
    """

    options: tuple[Option, ...]
    needs: tuple[Need, ...]
    adjustments: tuple[Command, ...]
    composition: Composition


def plan(vm: VM) -> Plan:
    """The plan of `vm`. Raises `SpecError` for parts that do not fit together."""
    options: list[Option] = []
    needs: list[Need] = []
    composition = Composition(Topology(vm.machine), vm.name)
    for items, source in _whole(vm):
        some, required = sort(items, source)
        options += some
        needs += required
    for placed in composition.add_all(_parts(vm)):
        options += (*placed.ports, *placed.options)
        needs += placed.needs
    spares, _ = sort(composition.topology.spares(), "machine.hotplug_ports")
    everything = tuple(composition.placed.values())
    check(vm, everything)
    needs = [_informed(need, vm, everything) for need in needs]
    adjustments = tuple(command for placed in everything for command in placed.adjustments)
    return Plan((*options, *spares), tuple(needs), adjustments, composition)


def _whole(vm: VM) -> Iterator[Piece]:
    """What belongs to the machine as a whole, with the field it comes from."""
    yield _identity(vm), "name"
    yield [Option("nodefaults"), Option("no-user-config")], "pyvirt"
    if vm.uuid is not None:
        yield [Option("uuid", str(vm.uuid))], "uuid"
    yield vm.machine.options(), "machine"
    yield _accelerator(vm), "accel"
    yield vm.cpus.options(), "cpus"
    yield vm.memory.options(), "memory"
    if vm.firmware is not None:
        yield vm.firmware.options(vm.machine.type), "firmware"
    if vm.smbios is not None:
        yield vm.smbios.options(), "smbios"
    if vm.actions is not None:
        yield vm.actions.options(), "actions"
    yield _monitor(), "pyvirt"
    for number, thread in enumerate(vm.iothreads):
        yield thread.options(), f"iothreads[{number}]"
    yield _boot(vm), "boot"
    if not vm.displays:
        yield [Option("display", {"type": "none"})], "displays"


def _identity(vm: VM) -> Iterator[Option]:
    yield Option("name", {"guest": vm.name, "debug-threads": True})


def _accelerator(vm: VM) -> Iterator[Option]:
    if vm.accel == "auto":
        yield Option("accel", Late("accel"))
    elif vm.accel == "tcg":
        yield Option("accel", {"accel": "tcg", "tb-size": TB_SIZE})
    else:
        yield Option("accel", {"accel": "kvm"})


def _monitor() -> Iterator[Option | Need]:
    yield Socketpair(MONITOR)
    yield Option("chardev", {"backend": "socket", "id": MONITOR, "fd": Late(MONITOR)})
    yield Option("mon", {"chardev": MONITOR, "mode": "control"})


def _boot(vm: VM) -> Iterator[Option | Need]:
    source = vm.boots
    if isinstance(source, Guest):
        address = APART if has_tpm(vm) else None
        clock = vm.machine.family == "microvm" and vm.accel != "kvm"
        efi = isinstance(vm.firmware, OVMF)
        image = GuestImage("guest", source, address=address, clock=clock, efi=efi)
        yield from guest_options(image)
    elif source is not None:
        yield from source.options()


def _informed(need: Need, vm: VM, everything: tuple[Placed, ...]) -> Need:
    """A default guest learns of the VM around it."""
    if not isinstance(need, GuestImage):
        return need
    return attrs.evolve(need, words=tuple(guest_words(vm.machine.family, vm.accel, everything)))


def _parts(vm: VM) -> Iterator[tuple[Part, str]]:
    """Every part with the field that holds it, in the order of their places."""
    for number, serial in enumerate(_serials(vm)):
        yield serial, f"serials[{number}]"
    for number, agent in enumerate(vm.channels):
        yield VirtioSerialPort(PORTS[agent], Piped(), id=agent), f"agents[{number}]"
    if vm.video is not None:
        yield vm.video, "video"
    for field in ("displays", "disks", "nics", "devices"):
        for number, part in enumerate(getattr(vm, field)):
            yield part, f"{field}[{number}]"


def _serials(vm: VM) -> tuple[Part, ...]:
    if vm.serials is not None:
        return vm.serials
    return () if vm.machine.family == "none" else (Serial(),)
