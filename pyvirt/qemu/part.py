"""What every attachable thing of a description has in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qmp.flow import Command


@frozen
class Slot:
    """The kind of place a part wants; the topology finds one.

    `bus`: "pci", "scsi", "ide", "sata", "usb", "sd", "floppy", "virtio-serial", "isa", or
    "" for a part that takes no place. `controller` is the model or the id of the controller,
    where the bus has several; `alone` asks for a controller of its own. `address` is
    where the user pinned it, in the bus's own words (``{"addr": "0x5"}``). `group` is
    the kind of part, whose addresses stay together ("disk", "nic", "video", "").
    `driver` is the model of the device: PCI asks it whether it is express or conventional,
    and a controller described by the user (a SCSI host, a bridge) is known by it.
    """

    bus: str = ""
    controller: str = ""
    alone: bool = False
    group: str = ""
    address: Mapping[str, Any] = field(factory=dict)
    unpluggable: bool = True
    driver: str = ""


@frozen
class At:
    """Where a part was put: its `name`, the bus properties of its place, the transport.

    `vm` is the name of the VM, for what must differ between VMs and not between starts.
    """

    name: str
    place: Mapping[str, Any] = field(factory=dict)
    transport: str = "pci"
    vm: str = ""

    def virtio(self, kind: str) -> str:
        """The driver name of virtio device `kind` ("blk") here: PCI, or MMIO on microvm."""
        return f"virtio-{kind}-{'pci' if self.transport == 'pci' else 'device'}"


@runtime_checkable
class Part(Protocol):
    """A disk, a network card, any device: yields its options once it has a place.

    `prefix` begins the generated names ("disk" → disk0); `id` is the user's own name.
    """

    @property
    def id(self) -> str | None: ...

    @property
    def prefix(self) -> str: ...

    @property
    def slot(self) -> Slot: ...

    def options(self, at: At) -> Iterator[Option | Need]:
        """The options in the order in which QEMU wants them, and what they need."""


@runtime_checkable
class Adjusted(Protocol):
    """A part with properties that QEMU takes only as commands, once the part exists.

    They are given before the guest's first instruction, or right after a plug.
    """

    def adjustments(self, at: At) -> Iterator[Command]: ...
