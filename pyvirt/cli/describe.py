"""The options that describe a VM, and the VM that they and a description file describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from pyvirt.errors import SpecError

if TYPE_CHECKING:
    from pyvirt.vm import VM

C = TypeVar("C", bound=Callable[..., Any])

#: Options that add to what a guest brings: name of the option → field of `Guest`.
_GUEST = {"binary": "binaries", "package": "packages", "module": "modules"}
_KERNEL = ("kernel", "initrd", "append")
_PLAIN = ("name", "machine", "memory", "accel")


def _machines(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in ("q35", "pc", "microvm") if name.startswith(begun)]


def _models(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    from pyvirt.nic.model import MODELS

    return [CompletionItem(name) for name in MODELS if name.startswith(begun)]


def _devices(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """pyvirt's classes, and the names of what the QEMU of this host has."""
    from pyvirt.device import Device
    from pyvirt.errors import PyvirtError
    from pyvirt.files import kinds
    from pyvirt.qemu.part import Part
    from pyvirt.running.host.probe import probe

    names = kinds.names(Part)
    with suppress(PyvirtError, OSError):  # without a QEMU there is less to complete
        names += Device.names(probe())
    return [CompletionItem(name) for name in names if name.startswith(begun)]


_OPTIONS = (
    click.option("--name", metavar="NAME", help="How the VM is called."),
    click.option("--machine", metavar="TYPE", shell_complete=_machines,
                 help="Machine type: q35 (the default), pc, microvm, or a version of them."),
    click.option("-m", "--memory", metavar="SIZE", help='Memory, such as "512M" (the default).'),
    click.option("-c", "--cpus", type=click.IntRange(1), metavar="N", help="vCPUs; 1 by default."),
    click.option("--cpu", metavar="MODEL", help='CPU model, such as "max".'),
    click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]),
                 help="What runs the guest's code; by default KVM where it was proved to."),
    click.option("--disk", "disks", multiple=True, metavar="FILE[,FIELD=VALUE...]",
                 type=click.Path(), help="A disk: data.qcow2,bus=scsi,cache=none."),
    click.option("--cdrom", "cdroms", multiple=True, metavar="FILE[,FIELD=VALUE...]",
                 type=click.Path(), help="A CD-ROM with the ISO image FILE."),
    click.option("--nic", "nics", multiple=True, metavar="[MODEL][,FIELD=VALUE...]",
                 shell_complete=_models,
                 help="A network card: e1000,mac=52:54:00:00:00:01 or backend=Tap,..."),
    click.option("--forward", "forwards", multiple=True, metavar="[HOST:]GUEST[/udp]",
                 help="Lead a port of this host to one of the guest."),
    click.option("--device", "devices", multiple=True, metavar="NAME[,FIELD=VALUE...]",
                 shell_complete=_devices,
                 help="A device: Rng, or any of QEMU's: virtio-rng-pci,max-bytes=1024."),
    click.option("--file", "files", multiple=True, metavar="PATH=FILE",
                 help="Bring FILE (or a directory) of this host into the guest, as PATH."),
    click.option("--binary", multiple=True, metavar="NAME",
                 help="Bring a program of this host with the libraries it needs."),
    click.option("--package", multiple=True, metavar="NAME",
                 help="Bring the files of a Debian package; it is downloaded, not installed."),
    click.option("--module", multiple=True, metavar="NAME", help="Load a kernel module at boot."),
    click.option("--kernel", metavar="FILE", type=click.Path(),
                 help="Boot this kernel instead of the default guest."),
    click.option("--initrd", metavar="FILE", type=click.Path(), help="The initrd of --kernel."),
    click.option("--append", metavar="WORDS", help="Words for the kernel's command line."),
    click.option("--qemu", "program", metavar="PROGRAM", help="The QEMU to use."),
)  # fmt: skip


def vm_options(command: C) -> C:
    """Adds the options that describe a VM; what they say arrives in keywords for `vm_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def vm_of(file: str | None, given: Mapping[str, Any]) -> VM:
    """The VM in a description file, with what options say put over it or added to it."""
    from pyvirt import files

    mapping = dict(files.parsed(file)) if file is not None else {}
    for name in _PLAIN:
        if given[name] is not None:
            mapping[name] = given[name]
    if given["program"] is not None:
        mapping["binary"] = given["program"]
    _cpus(mapping, given)
    _boot(mapping, given)
    _devices_of(mapping, given)
    return files.described(mapping)


def _cpus(mapping: dict[str, Any], given: Mapping[str, Any]) -> None:
    wanted = {"count": given["cpus"], "model": given["cpu"]}
    more = {key: value for key, value in wanted.items() if value is not None}
    if more:
        before = mapping.get("cpus", {})
        mapping["cpus"] = (before if isinstance(before, dict) else {"count": before}) | more


def _boot(mapping: dict[str, Any], given: Mapping[str, Any]) -> None:
    if given["kernel"] is not None:
        words = {key: given[key] for key in _KERNEL if given[key] is not None}
        mapping["boot"] = {"type": "Kernel", **words}
        return
    if given["initrd"] is not None:
        raise click.UsageError("--initrd goes with --kernel.")
    guest = {field: list(given[option]) for option, field in _GUEST.items() if given[option]}
    files = dict(_brought(word) for word in given["files"])
    more = {**guest, **({"files": files} if files else {})}
    if given["append"] is not None:
        more["append"] = given["append"]
    before = mapping.get("boot", {})
    if more and isinstance(before, dict):
        if before.get("type", "Guest") != "Guest":
            raise click.UsageError(f"--{next(iter(more))} is for the default guest.")
        mapping["boot"] = {"type": "Guest", **_joined(before, more)}


def _joined(before: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """What a file and options say of the guest: lists are continued, mappings united."""
    made = dict(before)
    for key, value in more.items():
        old = made.get(key)
        if isinstance(old, list):
            value = [*old, *value]
        elif isinstance(old, dict):
            value = {**old, **value}
        made[key] = value
    return made


def _brought(word: str) -> tuple[str, dict[str, str]]:
    path, equals, source = word.partition("=")
    if not equals or not source:
        raise click.UsageError(f"--file wants PATH=FILE, got {word!r}.")
    if not Path(source).exists():
        raise click.UsageError(f"--file {word}: there is no {source}.")
    return path, {"path": source}


def _devices_of(mapping: dict[str, Any], given: Mapping[str, Any]) -> None:
    from pyvirt.cli.words import table
    from pyvirt.files import kinds
    from pyvirt.vm import VM

    hints = kinds.hints(VM)
    for option, field, first in (
        ("disks", "disks", "file"), ("cdroms", "disks", "file"), ("nics", "nics", "model"),
    ):  # fmt: skip
        for word in given[option]:
            number = len(_list(mapping, field))
            kind = ",type=CDROM" if option == "cdroms" else ""
            made = table(word + kind, first, kinds.item(hints[field]), f"{field}[{number}]")
            mapping[field] = [*_list(mapping, field), made]
    for word in given["devices"]:
        mapping["devices"] = [*_list(mapping, "devices"), _device(word, mapping)]
    if given["forwards"]:
        _forward(mapping, [_forwarded(word) for word in given["forwards"]])


def _list(mapping: Mapping[str, Any], field: str) -> list[Any]:
    found = mapping.get(field, [])
    if not isinstance(found, list):
        raise SpecError(field, "must be a list", found)
    return found


def _device(word: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """One of pyvirt's classes, else the device of QEMU's with that name."""
    from pyvirt.cli.words import table
    from pyvirt.files import kinds
    from pyvirt.qemu.part import Part

    at = f"devices[{len(_list(mapping, 'devices'))}]"
    if kinds.named(word.partition(",")[0], Part) is not None:
        return table(word, "type", Part, at)
    made = table(word, "name", Any, at)
    own: dict[str, Any] = {key: made.pop(key) for key in ("name", "id") if key in made}
    return {"type": "Device", **own, **({"properties": made} if made else {})}


def _forward(mapping: dict[str, Any], forwards: list[dict[str, Any]]) -> None:
    """Add `forwards` to the first card; without one there is one then."""
    nics = [dict(nic) for nic in _list(mapping, "nics")] or [{}]
    backend = nics[0].get("backend", {"type": "User"})
    if not isinstance(backend, dict) or backend.get("type") not in ("User", "Passt"):
        raise click.UsageError("--forward needs a first card with backend=User or Passt.")
    nics[0]["backend"] = {**backend, "forwards": [*backend.get("forwards", []), *forwards]}
    mapping["nics"] = nics


def _forwarded(word: str) -> dict[str, Any]:
    ports, _, protocol = word.partition("/")
    host, colon, guest = ports.partition(":")
    try:
        made = {"host": int(host), "guest": int(guest if colon else host)}
    except ValueError:
        raise click.UsageError(f"--forward wants HOST:GUEST, got {word!r}.") from None
    return {**made, "proto": protocol} if protocol else made
