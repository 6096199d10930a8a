"""Any device of QEMU's, by its name, checked against what this QEMU says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot
from pyvirt.qemu.properties import check_properties

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
        """Raise unless that QEMU has the device and takes its properties.

        `UnsupportedError` for the device, `SpecError` for a property; each says what may
        have been meant.
        """
        check_properties(self.properties, capabilities.device(self.name).properties)

    @staticmethod
    def names(capabilities: Capabilities) -> tuple[str, ...]:
        """The names of all devices that a user of this QEMU can create, for completion."""
        rows = capabilities.devices
        aliases = (alias for alias, name in capabilities.aliases.items() if name in rows)
        return tuple(sorted([*(n for n, row in rows.items() if row.user_creatable), *aliases]))

    @staticmethod
    def properties_of(name: str, capabilities: Capabilities) -> Mapping[str, PropertyInfo]:
        """The properties that this QEMU's device `name` takes, for completion."""
        return capabilities.device(name).properties
