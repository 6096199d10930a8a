"""What the parts of a VM must agree on, and no part can know alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvirt.boot import Kernel
from pyvirt.devices import Balloon, HostTpm, Pvpanic, Tpm, Vmgenid
from pyvirt.disk import ThrottleGroup
from pyvirt.disk.drive import Drive
from pyvirt.errors import SpecError
from pyvirt.guest import Guest
from pyvirt.machine import DIMM, NVDIMM, OVMF, rules
from pyvirt.nic import Forward, Nic, User
from pyvirt.qemu.composition import Placed

if TYPE_CHECKING:
    from pyvirt.vm import VM

#: Bytes of memory that the default guest needs to boot.
LEAST = 128 << 20

#: Bytes of memory that a guest with an initramfs at `APART` needs to boot.
LEAST_APART = 256 << 20


def check(vm: VM, everything: tuple[Placed, ...]) -> None:
    """What no part can know alone."""
    rules.check(vm.machine, vm.cpus, vm.memory)
    for placed in everything:
        if getattr(placed.part, "needs_shared_memory", False) and not vm.memory.shared:
            raise SpecError("memory.shared", f"must be True for {placed.source}", False)
    if isinstance(vm.boots, Guest) and vm.memory.size < LEAST:
        raise SpecError("memory", "must be at least 128M for the default guest", vm.memory.size)
    if isinstance(vm.boots, Guest):
        _check_keys(vm)
    if isinstance(vm.boots, Guest) and vm.machine.family == "microvm":
        _check_acpi(vm)
    if has_tpm(vm):
        _check_initrd(vm)
    _check_single(everything)
    _check_named(vm, everything)
    _check_memory_modules(vm, everything)
    _check_images(everything)
    _check_forwards(everything)
    _check_failover(everything)
    _unique(everything, "bootindex")
    _unique(everything, "mac")


def _check_keys(vm: VM) -> None:
    """A kernel under secure boot loads signed modules, and the default guest's are shortened."""
    if isinstance(vm.firmware, OVMF) and vm.firmware.enrolled:
        reason = "must be False for the default guest, whose modules have no signatures"
        raise SpecError("firmware.enrolled", reason, True)


def has_tpm(vm: VM) -> bool:
    """Whether SeaBIOS makes tables for a TPM.

    Their 64 KiB log makes all its tables begin below the 160 KiB that QEMU keeps for them at
    the top of memory (`acpi_data_size` in hw/i386/pc.c), where -initrd puts its end.
    """
    uefi = isinstance(vm.firmware, OVMF)
    return not uefi and any(isinstance(part, Tpm | HostTpm) for part in vm.devices)


#: Parts of which a machine has one: QEMU refuses a second, or the two exclude each other.
SINGLE = (Tpm, HostTpm), (Vmgenid,), (Balloon,), (Pvpanic,)


def _check_single(everything: tuple[Placed, ...]) -> None:
    for kinds in SINGLE:
        same = [placed for placed in everything if isinstance(placed.part, kinds)]
        if len(same) > 1:
            reason = f"must be the only {type(same[1].part).__name__}, and {same[0].source} is one"
            raise SpecError(same[1].source, reason, same[1].part)


def _check_named(vm: VM, everything: tuple[Placed, ...]) -> None:
    """What a disk names must be there: QEMU would say so with the whole of its option."""
    groups = {p.name for p in everything if isinstance(p.part, ThrottleGroup)}
    known = {"iothread": {thread.id for thread in vm.iothreads}, "throttle": groups}
    for placed in everything:
        for field, names in known.items():
            name = getattr(placed.part, field, None)
            if isinstance(name, str) and name not in names:
                reason = f"must be one of the VM's: {', '.join(sorted(names)) or 'none'}"
                raise SpecError(f"{placed.source}.{field}", reason, name)


def _check_memory_modules(vm: VM, everything: tuple[Placed, ...]) -> None:
    modules = [placed for placed in everything if isinstance(placed.part, DIMM | NVDIMM)]
    if len(modules) > vm.memory.slots:
        reason = f"must be at least {len(modules)}, for {modules[-1].source}"
        raise SpecError("memory.slots", reason, vm.memory.slots)
    for placed in modules:
        if isinstance(placed.part, NVDIMM) and not vm.machine.nvdimm:
            reason = f"must be True for {placed.source}"
            raise SpecError("machine.nvdimm", reason, vm.machine.nvdimm)


def _check_images(everything: tuple[Placed, ...]) -> None:
    """No two disks write one image: QEMU's locks would refuse the second."""
    holders: dict[str, str] = {}
    for placed in everything:
        path = _written(placed.part)
        if path in holders:
            reason = f"must not be written by two disks, and {holders[path]} has it"
            raise SpecError(f"{placed.source}.file", reason, path)
        if path:
            holders[path] = placed.source


def _written(part: object) -> str:
    """The image file that a part writes and shares with nobody, or ""."""
    if not isinstance(part, Drive) or not isinstance(part.file, str):
        return ""
    shared = part.reads_only or part.temporary or part.share_rw or part.locking == "off"
    return "" if shared else part.file


def _check_forwards(everything: tuple[Placed, ...]) -> None:
    """No port of the host is forwarded twice."""
    holders: dict[str, str] = {}
    for placed in everything:
        for number, forward in enumerate(_forwards(placed.part)):
            source = f"{placed.source}.forwards[{number}]"
            if forward.host and forward.listens in holders:
                reason = f"must be another port than that of {holders[forward.listens]}"
                raise SpecError(source, reason, forward.listens)
            holders[forward.listens] = source


def _forwards(part: object) -> tuple[Forward, ...]:
    backend = part.backend if isinstance(part, Nic) else None
    return backend.forwards if isinstance(backend, User) else ()


def _check_failover(everything: tuple[Placed, ...]) -> None:
    """The standby that a card names is there; a guest would wait for it in vain."""
    standbys = {p.name for p in everything if isinstance(p.part, Nic) and p.part.failover}
    for placed in everything:
        partner = getattr(placed.part, "failover_pair_id", None)
        if partner is not None and partner not in standbys:
            reason = f"must name a card with failover: {', '.join(sorted(standbys)) or 'none is'}"
            raise SpecError(f"{placed.source}.failover_pair_id", reason, partner)


def _check_acpi(vm: VM) -> None:
    """Debian's kernel finds a microvm's devices by ACPI alone: virtio_mmio is a module."""
    if vm.machine.acpi is False:
        raise SpecError("machine.acpi", "must be on for the default guest of a microvm", False)


def _check_initrd(vm: VM) -> None:
    """A TPM's tables and an initrd, without which the guest hangs."""
    if isinstance(vm.boot, Kernel) and vm.boot.initrd is not None:
        reason = "must be OVMF() with a TPM: QEMU puts an initrd over SeaBIOS's tables for it"
        raise SpecError("firmware", reason, None)
    if isinstance(vm.boots, Guest) and vm.memory.size < LEAST_APART:
        reason = "must be at least 256M for the default guest with a TPM"
        raise SpecError("memory.size", reason, vm.memory.size)


def _unique(everything: tuple[Placed, ...], property_: str) -> None:
    """No two devices have the same value of `property_`: QEMU, or the guest, mixes them up."""
    holders: dict[object, str] = {}
    for placed in everything:
        value = placed.device_property(property_)
        # The primary card of a failover pair has the address of its standby.
        if value is None or (property_ == "mac" and placed.device_property("failover_pair_id")):
            continue
        if value in holders:
            reason = f"must be unique, and {holders[value]} has the same"
            raise SpecError(f"{placed.source}.{property_}", reason, value)
        holders[value] = placed.source
