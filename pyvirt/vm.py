"""A virtual machine as a frozen value: described here, computed in `plan`, started elsewhere."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from attrs import Attribute, field

from pyvirt import fields, html
from pyvirt.boot import Firmware, Kernel
from pyvirt.errors import SpecError
from pyvirt.explanation import Explanation
from pyvirt.fields import frozen
from pyvirt.guest import Guest
from pyvirt.machine import CPU, Actions, Bios, IOThread, Machine, Memory, Smbios
from pyvirt.nic import Nic
from pyvirt.plan import PORTS, Plan, plan
from pyvirt.qemu.part import Part
from pyvirt.qemu.render import argv

if TYPE_CHECKING:
    from pyvirt.running.guest.apt import Progress
    from pyvirt.running.vm import RunningVM


def _to_machine(value: Any) -> Any:
    return _inside("machine", Machine, value) if isinstance(value, str) else value


def _to_cpu(value: Any) -> Any:
    number = isinstance(value, int) and not isinstance(value, bool)
    return _inside("cpus", CPU, value) if number else value


def _to_memory(value: Any) -> Any:
    return _inside("memory", Memory, value) if isinstance(value, int | str) else value


def _inside(field: str, kind: Callable[[Any], Any], value: Any) -> Any:
    """What `kind` makes of `value`; its mistakes are those of `field`."""
    try:
        return kind(value)
    except SpecError as error:
        raise SpecError(field, error.reason, error.value) from None


def _to_uuid(value: Any) -> UUID | None:
    if value is None or isinstance(value, UUID):
        return value
    try:
        return UUID(str(value))
    except ValueError:
        raise SpecError("uuid", "must be a UUID", value) from None


_BOOTS = "Guest(...), Kernel(...) or Firmware(...)"


def _one_of(words: str, *types: type) -> fields.Validator:
    """The field is of one of `types`, which people write as `words`."""

    def check(instance: Any, field: Attribute[Any], value: Any) -> None:
        if not isinstance(value, types):
            raise SpecError(field.name, f"must be {words}", value)

    return check


def _part(instance: Any, field: Attribute[Any], value: Any) -> None:
    if not isinstance(value, Part):
        raise SpecError(field.name, f"must be {_EXAMPLES[field.name]}", value)


_EXAMPLES = {
    "disks": "disks, such as Disk('data.qcow2') or CDROM()",
    "serials": "ports, such as pyvirt.devices.Serial()",
    "displays": "displays, such as pyvirt.devices.Vnc()",
    "devices": "devices, such as pyvirt.devices.Rng() or Device('edu')",
    "video": "a graphics card, such as pyvirt.devices.StdVga()",
}
_parts = fields.each(_part)


@frozen(kw_only=True)
class VM:
    """A virtual machine.

    With nothing to boot (no `boot`, and no disk or card with a ``bootindex``) it boots the
    default guest: Linux from the host's distribution, with an agent, so that ``run()``
    works at once.

    `memory` is bytes or text such as "512M"; `cpus` a number or a `CPU`; `machine` a type
    or a `Machine`. `accel` is "auto" (KVM where it was proved to run a guest, else TCG),
    "kvm" or "tcg". `devices` takes every part that has no
    field of its own. `serials` defaults to one port that is captured. `agents` are the
    channels offered to agents in the guest: "pyvirt" for its own, "qga" for QEMU's; by
    default what suits what is booted. `actions` say what QEMU does when the guest resets, ends
    or panics. `paused` leaves the vCPUs stopped. `arguments` go to QEMU as they are, last.

    Raises `SpecError` naming the field.
    """

    name: str = field(default="vm", validator=fields.text)
    machine: Machine = field(
        default=Machine("q35"),
        converter=_to_machine,
        validator=_one_of("a type or Machine(...)", Machine),
    )
    cpus: CPU = field(
        default=CPU(1), converter=_to_cpu, validator=_one_of("a number or CPU(...)", CPU)
    )
    memory: Memory = field(
        default=Memory("512M"),
        converter=_to_memory,
        validator=_one_of("bytes, text or Memory(...)", Memory),
    )
    accel: str = field(default="auto", validator=fields.choice("auto", "kvm", "tcg"))
    firmware: Bios | None = field(
        default=None,
        validator=fields.optional(_one_of("OVMF(), SeaBIOS(), QBoot() or Rom(...)", Bios)),
    )
    smbios: Smbios | None = field(default=None, validator=fields.optional(fields.kind(Smbios)))
    boot: Guest | Kernel | Firmware | None = field(
        default=None, validator=fields.optional(_one_of(_BOOTS, Guest, Kernel, Firmware))
    )
    disks: tuple[Part, ...] = field(default=(), converter=fields.to_tuple, validator=_parts)
    nics: tuple[Nic, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.kind(Nic))
    )
    serials: tuple[Part, ...] | None = field(
        default=None, converter=fields.to_optional_tuple, validator=fields.optional(_parts)
    )
    video: Part | None = field(default=None, validator=fields.optional(_part))
    displays: tuple[Part, ...] = field(default=(), converter=fields.to_tuple, validator=_parts)
    devices: tuple[Part, ...] = field(default=(), converter=fields.to_tuple, validator=_parts)
    iothreads: tuple[IOThread, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.kind(IOThread))
    )
    agents: tuple[str, ...] | None = field(
        default=None,
        converter=fields.to_optional_tuple,
        validator=fields.optional(fields.each(fields.choice(*PORTS))),
    )
    actions: Actions | None = field(
        default=None, validator=fields.optional(fields.kind(Actions))
    )
    uuid: UUID | None = field(default=None, converter=_to_uuid)
    paused: bool = field(default=False, validator=fields.kind(bool))
    binary: str = field(default="qemu-system-x86_64", converter=str)
    arguments: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.text)
    )

    def __attrs_post_init__(self) -> None:
        plan(self)  # What no field can know alone: unique ids, places for all parts.

    @property
    def boots(self) -> Guest | Kernel | Firmware | None:
        """What it boots once the rule of the default guest was applied; None on machine none."""
        if self.boot is not None or self.machine.family == "none":
            return self.boot
        parts = (*self.disks, *self.nics, *self.devices)
        if any(getattr(part, "bootindex", None) is not None for part in parts):
            return Firmware()
        return Guest()

    @property
    def channels(self) -> tuple[str, ...]:
        """The agents that are offered a channel."""
        if self.agents is not None or self.machine.family == "none":
            return self.agents or ()
        source = self.boots
        if isinstance(source, Guest):
            return ("pyvirt", "qga") if source.qga else ("pyvirt",)
        return ("qga",)

    def plan(self) -> Plan:
        """The options and needs behind it."""
        return plan(self)

    def command_line(self, supplied: Mapping[str, str] | None = None) -> str:
        """What QEMU will be given, as a line for a shell. Nothing is started.

        What only a start can know (an fd, a temporary path, the accelerator that "auto"
        finds) stands as ``<name>``, unless `supplied` has it.
        """
        return shlex.join(self.argv(supplied))

    def argv(self, supplied: Mapping[str, str] | None = None) -> list[str]:
        """The words of `command_line`, the program first."""
        return [self.binary, *argv(self.plan().options, supplied), *self.arguments]

    def explain(self) -> Explanation:
        """For every option, which field of the description made it."""
        return Explanation(self.plan().options)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VM:
        """The VM that a TOML or JSON file describes; `pyvirt.files` says how.

        Raises `SpecError` naming the place in the file (``disks[0].bus``).
        """
        from pyvirt import files

        return files.load(path)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the description to a .toml or .json file, for `load`."""
        from pyvirt import files

        return files.save(self, path)

    def start(self, *, timeout: float = 30.0, progress: Progress | None = None) -> RunningVM:
        """Start it and wait, at most `timeout` seconds, until QEMU answers.

        Use it in a ``with``. The guest goes on booting; what is asked of its agent waits for
        it. `progress` is told what is downloaded or built first, where that takes a while,
        and how much of it is done (0.0 to 1.0, None where nobody knows).

        Raises `UnsupportedError` before anything is started when this host or this QEMU
        lacks something, and `StartError` with QEMU's last words.
        """
        from pyvirt.running.vm import RunningVM

        return RunningVM.start(self, timeout=timeout, progress=progress)

    def _repr_html_(self) -> str:
        given = {field.name: fields.written(value) for field, value in fields.given(self)}
        rows: dict[str, Any] = {name: given[name] for name in given if name != "name"}
        rows["command line"] = self.command_line()
        return html.card(f"VM {self.name}", rows)
