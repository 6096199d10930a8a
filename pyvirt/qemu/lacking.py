"""Does this QEMU have what the options need? Asked before it is started."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyvirt.errors import UnsupportedError
from pyvirt.qemu.option import Option
from pyvirt.qemu.properties import check_properties
from pyvirt.qmp.schema import suggestion

if TYPE_CHECKING:
    from pyvirt.qemu.capabilities import Capabilities

#: What does nearly the same where a newer device is missing.
INSTEAD: Mapping[str, str] = {
    "igb": "there is e1000e",
    "virtio-sound-pci": "there is ich9-intel-hda with hda-duplex",
    "virtio-mem-pci": "there is pc-dimm",
    "megasas-gen2": "there is megasas",
    "nvme": "there is virtio-blk-pci",
}

# Words of the command line for what the schema calls otherwise.
_SPELLINGS: Mapping[str, str] = {"tty": "serial", "parport": "parallel"}

_CPU_CLASS = "max-x86_64-cpu"

# Properties of every device, which device-list-properties does not list.
_ALWAYS = frozenset({"driver", "id", "bus"})


def check(qemu: Capabilities, options: Iterable[Option]) -> None:
    """Raise `UnsupportedError` for the first thing that `qemu` lacks.

    Where a QEMU told nothing of a kind of thing, nothing is refused: it will say so itself.
    """
    options = list(options)
    for option in options:
        look = _LOOKS.get(option.kind)
        if look is not None and isinstance(option.properties, Mapping):
            for what, known in look(qemu, option.properties):
                _refuse(qemu, option, what, known)
    _check_count(qemu, options)


def _check_count(qemu: Capabilities, options: Iterable[Option]) -> None:
    """Raise when the machine takes fewer vCPUs than there are to be."""
    machine, source = "", ""
    smp: dict[str, Any] = {}
    for option in options:
        if option.kind == "machine" and isinstance(option.properties, Mapping):
            machine = str(option.properties.get("type", machine))
        elif option.kind == "smp" and isinstance(option.properties, Mapping):
            smp, source = dict(option.properties), option.source
    most = qemu.machine(machine).cpu_max if machine and smp else None
    count = int(smp.get("maxcpus", smp.get("cpus", 1)))
    if most is not None and count > most:
        where = f"{qemu.name} on machine {machine}" + (f" ({source})" if source else "")
        raise UnsupportedError(f"a number of {count} vCPUs", where, f"it takes at most {most}")


def _refuse(qemu: Capabilities, option: Option, what: str, known: Collection[str]) -> None:
    name = what.split(" of ")[0].rpartition(" ")[2]
    hint = INSTEAD.get(name, "") or suggestion(name, known)
    where = f"{qemu.name} ({option.source})" if option.source else qemu.name
    raise UnsupportedError(what, where, hint)


_Lacks = Iterator[tuple[str, Collection[str]]]


def _device(qemu: Capabilities, properties: Mapping[str, Any]) -> _Lacks:
    driver = str(properties["driver"])
    if qemu.aliases.get(driver, driver) not in qemu.devices:
        yield f"device {driver}", [*qemu.devices, *qemu.aliases]
        return
    known = qemu.device(driver).properties
    for name, value in properties.items():
        # Of what QEMU tells no properties, nothing can be said.
        if known and value is not None and name not in known and name not in _ALWAYS:
            yield f"property {name} of device {driver}", known
    if known:
        check_properties(properties, known)


def _machine(qemu: Capabilities, properties: Mapping[str, Any]) -> _Lacks:
    names = {name for m in qemu.machines.values() for name in (m.name, m.alias) if name}
    wanted = properties.get("type")
    if wanted is not None and wanted not in names:
        yield f"machine {wanted}", names


def _cpu(qemu: Capabilities, properties: Mapping[str, Any]) -> _Lacks:
    model = properties.get("model", "host")
    if qemu.cpus and model not in {*qemu.cpus, "host", "max", "base"}:
        yield f"CPU model {model}", qemu.cpus
    # Every x86 model is one class with the same properties.
    if _CPU_CLASS in qemu.devices:
        known = {_plain(name) for name in qemu.device(_CPU_CLASS).properties}
        for name in properties:
            if name != "model" and _plain(name) not in known:
                yield f"feature {name} of CPU model {model}", known


def _plain(name: str) -> str:
    """QEMU takes the names of features with - and _ alike."""
    return name.replace("_", "-")


def _blockdev(qemu: Capabilities, node: Mapping[str, Any]) -> _Lacks:
    driver, aio = node.get("driver", "raw"), node.get("aio", "threads")
    if qemu.block_drivers and driver not in qemu.block_drivers:
        yield f"block driver {driver}", qemu.block_drivers
    if qemu.aio and aio not in qemu.aio:
        yield f"aio {aio}", qemu.aio
    for child in node.values():
        if isinstance(child, Mapping) and "driver" in child:
            yield from _blockdev(qemu, child)


def _one_of(key: str, what: str, field: str) -> Callable[[Capabilities, Mapping[str, Any]], _Lacks]:
    """The look for options whose property `key` must be in `field` of the capabilities."""

    def look(qemu: Capabilities, properties: Mapping[str, Any]) -> _Lacks:
        known: Collection[str] = getattr(qemu, field)
        wanted = properties.get(key)
        if known and isinstance(wanted, str) and _SPELLINGS.get(wanted, wanted) not in known:
            yield f"{what} {wanted}", known

    return look


_LOOKS: Mapping[str, Callable[[Capabilities, Mapping[str, Any]], _Lacks]] = {
    "device": _device,
    "machine": _machine,
    "cpu": _cpu,
    "blockdev": _blockdev,
    "object": _one_of("qom-type", "object", "objects"),
    "netdev": _one_of("type", "netdev", "netdevs"),
    "chardev": _one_of("backend", "chardev", "chardevs"),
    "audiodev": _one_of("driver", "audiodev", "audiodevs"),
    "display": _one_of("type", "display", "displays"),
    "tpmdev": _one_of("type", "TPM back end", "tpms"),
    "accel": _one_of("accel", "accelerator", "accelerators"),
}
