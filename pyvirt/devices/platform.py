"""Small devices by which a guest and QEMU tell each other of panics and of being copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached, only_for
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot


@frozen
class Pvpanic(Attached):
    """Tells QEMU that the guest's kernel panicked (the event ``GUEST_PANICKED``).

    `model` is "pvpanic-pci", or "pvpanic" on ISA at `ioport`. `events` is the mask that the
    guest is offered: 1 panicked, 2 crash loaded, 4 shut down (QEMU 9).
    """

    model: str = field(default="pvpanic-pci", validator=fields.choice("pvpanic-pci", "pvpanic"))
    events: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 255)), kw_only=True
    )
    ioport: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 0xFFFF)), kw_only=True
    )

    PREFIX = "pvpanic"

    def __attrs_post_init__(self) -> None:
        only_for("model", ("pvpanic",), self.model, ioport=self.ioport)

    @property
    def driver(self) -> str:
        return self.model

    @property
    def slot(self) -> Slot:
        bus = "pci" if self.model == "pvpanic-pci" else "isa"
        return Slot(bus, address=self.address, unpluggable=bus == "pci", driver=self.driver)

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.device(self.model, at, events=self.events, ioport=self.ioport)


def _to_guid(value: Any) -> str:
    if value == "auto":
        return "auto"
    try:
        return str(value if isinstance(value, UUID) else UUID(str(value)))
    except ValueError:
        raise SpecError("guid", "must be 'auto' or a UUID", value) from None


@frozen
class Vmgenid(Attached):
    """The generation id: a guest that sees another `guid` knows that it was copied or rewound.

    "auto" is a new one at each start. It needs ACPI, and a VM has at most one.
    """

    guid: str = field(default="auto", converter=_to_guid)

    PREFIX, DRIVER, BUS, UNPLUGGABLE = "vmgenid", "vmgenid", "", False

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.device(self.DRIVER, at, guid=self.guid)
