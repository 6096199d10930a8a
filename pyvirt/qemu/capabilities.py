"""What one QEMU has: machines, CPU models, devices and their properties, back ends.

A value made from QEMU's own answers (`learn`). Its cached form is an index; the properties
of devices and the QMP schema are decoded when somebody asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from pyvirt import html
from pyvirt.errors import UnsupportedError
from pyvirt.qemu.lacking import check
from pyvirt.qemu.option import Option
from pyvirt.qmp.schema import Enum, Object, Schema, suggestion

#: The version of the cached form.
FORM = 1


class MachineInfo(msgspec.Struct, frozen=True, array_like=True):
    """A machine type. `alias` is its short name ("q35")."""

    name: str
    alias: str | None
    cpu_max: int
    hotpluggable_cpus: bool
    default_cpu: str | None
    default_ram_id: str | None
    deprecated: bool


class CPUInfo(msgspec.Struct, frozen=True, array_like=True):
    """A CPU model and the features that it lacks under the accelerator that was asked."""

    name: str
    unavailable: tuple[str, ...]
    deprecated: bool


class PropertyInfo(msgspec.Struct, frozen=True, array_like=True):
    """A property of a device, in QEMU's words; `default` is None when QEMU tells none."""

    name: str
    type: str
    description: str | None
    default: Any


class _Row(msgspec.Struct, frozen=True, array_like=True):
    bus: str
    description: str
    user_creatable: bool
    express: bool | None
    properties: int | None


class DeviceInfo(msgspec.Struct, frozen=True):
    """A device model: the QEMU name of its bus ("PCI", "usb-bus"), and its properties.

    `express` is None for what does not sit on PCI.
    """

    name: str
    bus: str
    description: str
    user_creatable: bool
    express: bool | None
    properties: Mapping[str, PropertyInfo]


class Capabilities(msgspec.Struct, array_like=True, dict=True, kw_only=True):
    """Everything pyvirt wants to know of one QEMU binary."""

    version: tuple[int, int, int]
    package: str
    target: str
    machines: dict[str, MachineInfo]
    cpus: dict[str, CPUInfo]
    devices: dict[str, _Row]
    aliases: dict[str, str]
    objects: frozenset[str]
    netdevs: frozenset[str]
    chardevs: frozenset[str]
    block_drivers: frozenset[str]
    aio: frozenset[str]
    audiodevs: frozenset[str]
    displays: frozenset[str]
    tpms: frozenset[str]
    accelerators: frozenset[str]
    property_sets: msgspec.Raw
    properties: msgspec.Raw
    schema_bytes: bytes

    def device(self, name: str) -> DeviceInfo:
        """What is known of device `name`, or of the one it is an alias of.

        Raises `UnsupportedError` when this QEMU has none, saying what comes close.
        """
        row = self.devices.get(self.aliases.get(name, name))
        if row is None:
            raise UnsupportedError(f"device {name!r}", self.name, suggestion(name, self.devices))
        members = self._sets[row.properties] if row.properties is not None else ()
        known = {self._properties[i].name: self._properties[i] for i in members}
        head = row.bus, row.description, row.user_creatable, row.express
        return DeviceInfo(self.aliases.get(name, name), *head, known)

    def machine(self, name: str) -> MachineInfo:
        """What is known of machine type `name`. Raises `UnsupportedError`."""
        for machine in self.machines.values():
            if name in (machine.name, machine.alias):
                return machine
        known = [name for m in self.machines.values() for name in (m.name, m.alias) if name]
        raise UnsupportedError(f"machine {name!r}", self.name, suggestion(name, known))

    def check_events(self, names: Iterable[str]) -> None:
        """Raise `UnsupportedError` for an event that this QEMU never sends."""
        for name in names:
            if name not in self.schema.events:
                hint = suggestion(name, self.schema.events)
                raise UnsupportedError(f"event {name!r}", self.name, hint)

    def check(self, options: Iterable[Option]) -> None:
        """Raise `UnsupportedError` for the first option that needs what this QEMU lacks."""
        check(self, options)

    @property
    def name(self) -> str:
        """How errors call it: ``QEMU 7.2.22``."""
        return f"QEMU {'.'.join(str(part) for part in self.version)}"

    @cached_property
    def schema(self) -> Schema:
        """Its QMP commands and events."""
        return Schema.from_bytes(self.schema_bytes)

    @cached_property
    def _sets(self) -> list[tuple[int, ...]]:
        return msgspec.msgpack.decode(self.property_sets, type=list[tuple[int, ...]])

    @cached_property
    def _properties(self) -> list[PropertyInfo]:
        return msgspec.msgpack.decode(self.properties, type=list[PropertyInfo])

    def to_bytes(self) -> bytes:
        """The cached form."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Capabilities:
        """What `to_bytes` put into `data`. Raises `msgspec.MsgspecError` for anything else."""
        return _decode(data)

    def _repr_html_(self) -> str:
        counts = ("machines", "cpus", "devices", "objects", "netdevs", "block_drivers")
        rows: dict[str, Any] = {name.replace("_", " "): len(getattr(self, name)) for name in counts}
        rows["accelerators"] = ", ".join(sorted(self.accelerators))
        rows["QMP commands"] = len(self.schema.commands)
        return html.card(f"{self.name} for {self.target}", rows)

    def __repr__(self) -> str:
        return f"<Capabilities of {self.name} for {self.target}, {len(self.devices)} devices>"


_decode = msgspec.msgpack.Decoder(Capabilities).decode


class Answers(msgspec.Struct, kw_only=True):
    """What QEMU said, as its commands returned it.

    `properties` maps devices to the answer of ``device-list-properties``, None where QEMU
    gave none. `qdm` is the text of the human monitor's ``info qdm``; `help` holds the texts
    of ``-display help`` and ``-audiodev help``.
    """

    version: Mapping[str, Any]
    target: Mapping[str, Any]
    machines: Sequence[Mapping[str, Any]]
    cpus: Sequence[Mapping[str, Any]]
    properties: Mapping[str, Sequence[Mapping[str, Any]] | None]
    express: frozenset[str]
    conventional: frozenset[str]
    accelerators: Sequence[Mapping[str, Any]]
    tpms: Sequence[str]
    qdm: str
    help: Mapping[str, str]
    schema: Schema


def learn(answers: Answers) -> Capabilities:
    """What the answers of one QEMU amount to."""
    buses, aliases = _qdm(answers.qdm)
    table = _Table()
    schema, version = answers.schema, answers.version["qemu"]
    return Capabilities(
        version=(version["major"], version["minor"], version["micro"]),
        package=str(answers.version.get("package", "")),
        target=str(answers.target["arch"]),
        machines={m["name"]: _machine(m) for m in answers.machines},
        cpus={cpu["name"]: _cpu(cpu) for cpu in answers.cpus},
        devices={
            name: _Row(*buses.get(name, _UNTOLD), _express(name, answers), table.add(listed))
            for name, listed in answers.properties.items()
        },
        aliases=aliases,
        objects=_cases(schema, "object-add"),
        netdevs=_cases(schema, "netdev_add"),
        chardevs=_cases(schema, "chardev-add", "backend"),
        block_drivers=_cases(schema, "blockdev-add"),
        aio=_enumeration(schema, "blockdev-add", "file", "aio"),
        audiodevs=_listed(answers.help["audiodev"]),
        displays=_listed(answers.help["display"]),
        tpms=frozenset(answers.tpms),
        accelerators=_accelerators(answers.accelerators),
        property_sets=msgspec.Raw(msgspec.msgpack.encode(list(table.sets))),
        properties=msgspec.Raw(msgspec.msgpack.encode(list(table.properties.values()))),
        schema_bytes=schema.to_bytes(),
    )


# Bus, description and "may users create it" of what ``info qdm`` leaves out.
_UNTOLD = ("", "", False)


class _Table:
    """Each property once, each set of properties once: CPU models share theirs."""

    def __init__(self) -> None:
        self.properties: dict[bytes, PropertyInfo] = {}
        self.sets: dict[tuple[int, ...], int] = {}
        self._numbers: dict[bytes, int] = {}

    def add(self, listed: Sequence[Mapping[str, Any]] | None) -> int | None:
        if listed is None:
            return None
        members = tuple(sorted(self._number(_property(entry)) for entry in listed))
        return self.sets.setdefault(members, len(self.sets))

    def _number(self, info: PropertyInfo) -> int:
        key = msgspec.msgpack.encode(info)
        self.properties.setdefault(key, info)
        return self._numbers.setdefault(key, len(self._numbers))


def _property(entry: Mapping[str, Any]) -> PropertyInfo:
    default = entry.get("default-value")
    return PropertyInfo(entry["name"], entry["type"], entry.get("description"), default)


def _machine(entry: Mapping[str, Any]) -> MachineInfo:
    return MachineInfo(
        entry["name"],
        entry.get("alias"),
        entry["cpu-max"],
        entry["hotpluggable-cpus"],
        entry.get("default-cpu-type"),
        entry.get("default-ram-id"),
        entry.get("deprecated", False),
    )


def _cpu(entry: Mapping[str, Any]) -> CPUInfo:
    lacking = tuple(entry.get("unavailable-features", ()))
    return CPUInfo(entry["name"], lacking, entry.get("deprecated", False))


def _accelerators(types: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    names = (str(entry["name"]).partition("-accel") for entry in types)
    return frozenset(name for name, suffix, _ in names if suffix)


def _express(name: str, answers: Answers) -> bool | None:
    if name in answers.express:
        return True
    return False if name in answers.conventional else None


_QDM = re.compile(
    r'name "(?P<name>[^"]+)"(?:, bus (?P<bus>[^,\r\n]+))?(?:, alias "(?P<alias>[^"]+)")?'
    r'(?:, desc "(?P<desc>[^"\r\n]*)")?(?P<no_user>, no-user)?'
)


def _qdm(text: str) -> tuple[dict[str, tuple[str, str, bool]], dict[str, str]]:
    """Bus, description and whether users may create it, by device; and the aliases."""
    devices: dict[str, tuple[str, str, bool]] = {}
    aliases: dict[str, str] = {}
    for found in _QDM.finditer(text):
        devices[found["name"]] = found["bus"] or "", found["desc"] or "", not found["no_user"]
        if found["alias"]:
            aliases[found["alias"]] = found["name"]
    return devices, aliases


_HEADING = re.compile(r"^Available .*:\s*$", re.MULTILINE)


def _listed(text: str) -> frozenset[str]:
    """The words under the heading of a ``help``; QEMU's complaints are longer lines."""
    found = _HEADING.search(text)
    lines = text[found.end() :].splitlines() if found else []
    return frozenset(line.strip() for line in lines if re.fullmatch(r"\s*[\w-]+\s*", line))


def _cases(schema: Schema, command: str, *path: str) -> frozenset[str]:
    """The cases of the tagged union that `command` takes, or its argument at `path`."""
    union = _argument(schema, command, *path)
    return frozenset(variant.case for variant in union.variants) if union else frozenset()


def _argument(schema: Schema, command: str, *path: str) -> Object | None:
    if command not in schema.commands:
        return None
    found = schema.object_of(schema.command(command).arg_type)
    for name in path:
        member = next((m for m in found.members if m.name == name), None)
        if member is None:
            return None
        found = schema.object_of(member.type)
    return found


def _enumeration(schema: Schema, command: str, case: str, name: str) -> frozenset[str]:
    """The values that member `name` of case `case` of a command takes."""
    union = _argument(schema, command)
    variant = next((v for v in union.variants if v.case == case), None) if union else None
    members = schema.object_of(variant.type).members if variant else ()
    member = next((m for m in members if m.name == name), None)
    values = schema.type_of(member.type) if member else None
    return frozenset(values.values) if isinstance(values, Enum) else frozenset()
