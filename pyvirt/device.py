"""Any device of QEMU's, by its name, checked against what this QEMU says of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Late, Option
from pyvirt.qemu.part import At, Slot

if TYPE_CHECKING:
    from pyvirt.qemu.capabilities import Capabilities, PropertyInfo

#: What a device sits on, by QEMU's name of the bus.
BUSES: Mapping[str, str] = {
    "PCI": "pci",
    "SCSI": "scsi",
    "IDE": "ide",
    "ISA": "isa",
    "usb-bus": "usb",
    "virtio-serial-bus": "virtio-serial",
    "sd-bus": "sd",
    "floppy-bus": "floppy",
}

# fmt: off
_SYSTEM = frozenset({
    "amd-iommu", "guest-loader", "hv-syndbg", "intel-iommu", "loader", "nvdimm", "nvme-ns",
    "nvme-subsys", "pc-dimm", "ramfb", "tpm-crb", "vmbus-bridge", "vmcoreinfo", "vmgenid",
})
_ISA = frozenset({
    "adlib", "cs4231a", "gus", "hyperv-testdev", "i8042", "ib700", "mc146818rtc", "ne2k_isa",
    "pc-testdev", "pvpanic", "sb16", "sga", "tpm-tis", "vmmouse",
})
# fmt: on
_FAMILIES = (
    (r"usb-ehci|.*-usb-.*", "pci"),
    (r"usb-.*|u2f-passthru", "usb"),
    (r"scsi-.*", "scsi"),
    (r"ide-.*", "ide"),
    (r"isa-.*", "isa"),
    (r"virtserialport|virtconsole", "virtio-serial"),
    (r"sd-card", "sd"),
    (r"floppy", "floppy"),
    (r"hda-.*|ccid-card-.*|i2c-.*|smbus-.*|.*-cpu", ""),
)


def bus_of(name: str) -> str:
    """The kind of bus that the device `name` sits on, as far as its name tells: else "pci"."""
    if name in _SYSTEM:
        return ""
    if name in _ISA:
        return "isa"
    return next((bus for pattern, bus in _FAMILIES if re.fullmatch(pattern, name)), "pci")


@frozen
class Device:
    """The device `name` with `properties`, both in QEMU's words.

    Values are JSON's: True and not "on" for a boolean, numbers for sizes. `bus` is the kind
    of place it takes ("pci", "usb", "scsi", "isa", ..., "" for none); by default what its
    name tells. A place in `properties` (``bus``, ``addr``, ...) pins it.
    """

    name: str = field(validator=fields.text)
    properties: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping))
    id: str | None = field(default=None, validator=fields.optional(fields.name), kw_only=True)
    bus: str | None = field(default=None, kw_only=True)
    group: str = field(default="", validator=fields.text, kw_only=True)

    prefix = "device"

    #: The properties that say where on its bus a device sits.
    PLACES = ("bus", "addr", "port", "unit", "scsi-id", "channel", "lun", "nr")

    def __attrs_post_init__(self) -> None:
        for word in ("id", "driver"):
            if word in self.properties:
                raise SpecError("properties", f"must not hold {word!r}: it is a field", word)

    @property
    def slot(self) -> Slot:
        """The place it wants."""
        pinned = {key: self.properties[key] for key in self.PLACES if key in self.properties}
        bus = bus_of(self.name) if self.bus is None else self.bus
        return Slot(bus, group=self.group, address=pinned if bus else {}, driver=self.name)

    def options(self, at: At) -> Iterator[Option | Need]:
        """``-device``."""
        head = {"driver": self.name, "id": at.name}
        yield Option("device", {**head, **at.place, **self.properties})

    def check(self, capabilities: Capabilities) -> None:
        """Raise `SpecError` unless that QEMU has the device and takes its properties."""
        names = self.names(capabilities)
        if self.name not in names:
            reason = f"is no device of this QEMU{_meant(self.name, names)}"
            raise SpecError("name", reason, self.name)
        check_properties(self.properties, self.properties_of(self.name, capabilities))

    @staticmethod
    def names(capabilities: Capabilities) -> tuple[str, ...]:
        """The names of all devices that this QEMU has, for completion."""
        return tuple(sorted(capabilities.devices))

    @staticmethod
    def properties_of(name: str, capabilities: Capabilities) -> Mapping[str, PropertyInfo]:
        """The properties that this QEMU's device `name` takes, for completion."""
        properties: Mapping[str, PropertyInfo] = capabilities.device(name).properties
        return properties


def check_properties(properties: Mapping[str, Any], known: Mapping[str, PropertyInfo]) -> None:
    """Raise `SpecError` for a property that is not `known`, or whose value has the wrong type."""
    for name, value in properties.items():
        if name in {"bus", "id", "driver"}:
            continue
        if name not in known:
            reason = f"is not a property of the device{_meant(name, known)}"
            raise SpecError(f"properties.{name}", reason, value)
        if value is not None and not isinstance(value, Late):
            _check_value(f"properties.{name}", value, known[name])


def _meant(name: str, known: Iterable[str]) -> str:
    words = list(known)
    spelled = {word.replace("_", "-").lower(): word for word in words}
    plain = name.replace("_", "-").lower()
    close = [spelled[plain]] if plain in spelled else difflib.get_close_matches(name, words, n=2)
    return f"; did you mean {' or '.join(close)}?" if close else ""


_INTEGER = re.compile(r"(u?)int(\d*)")


def _check_value(field: str, value: Any, info: PropertyInfo) -> None:
    if info.type == "bool":
        _must(isinstance(value, bool), field, "must be True or False", value)
    elif integer := _INTEGER.fullmatch(info.type):
        _check_integer(field, value, info, integer)
    elif info.type == "size":
        reason = "must be a size in bytes, as a number"
        _must(_is_integer(value) and value >= 0, field, reason, value)
    elif info.type.startswith("child<") or info.type == "guest statistics":
        _must(False, field, "is a part of the device and cannot be set", value)
    elif words := enumeration(info):
        _must(value in words, field, f"must be one of {', '.join(words)}", value)
    else:
        _must(isinstance(value, str), field, "must be text", value)


def _check_integer(field: str, value: Any, info: PropertyInfo, kind: re.Match[str]) -> None:
    if _is_address(info) and isinstance(value, str):
        return
    _must(_is_integer(value), field, "must be an integer", value)
    bits = int(kind[2] or 64)
    low, high = (0, 2**bits - 1) if kind[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    _must(low <= value <= high, field, f"must be from {low} to {high}", value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_address(info: PropertyInfo) -> bool:
    """A PCI slot and function, which QEMU reads from text although it says int32."""
    return (info.description or "").startswith("Slot and optional function")


def enumeration(info: PropertyInfo) -> tuple[str, ...]:
    """The words that an enumeration takes, which QEMU tells only in its description."""
    last = (info.description or "").rpartition(" ")[2]
    return tuple(last.split("/")) if info.type[:1].isupper() and "/" in last else ()


def _must(holds: bool, field: str, reason: str, value: Any) -> None:
    if not holds:
        raise SpecError(field, reason, value)
