"""Hardware watchdogs."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot

#: What QEMU can do when a watchdog was not fed.
ACTIONS = ("reset", "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none")


@frozen
class Watchdog(Attached):
    """A watchdog; `action` is what happens when the guest does not feed it.

    The action holds for all watchdogs of a VM. Without one, QEMU resets the guest.
    """

    action: str | None = field(default=None, validator=fields.optional(fields.choice(*ACTIONS)))
    model: str = field(
        default="i6300esb", validator=fields.choice("i6300esb", "ib700"), kw_only=True
    )

    PREFIX = "watchdog"

    @property
    def driver(self) -> str:
        return self.model

    @property
    def slot(self) -> Slot:
        bus = "pci" if self.model == "i6300esb" else "isa"
        return Slot(bus, address=self.address, unpluggable=bus == "pci", driver=self.driver)

    def options(self, at: At) -> Iterator[Option | Need]:
        if self.action is not None:
            yield Option("action", {"watchdog": self.action}, "action")
        yield self.device(self.model, at)
