"""USB controllers of every generation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached, only_for
from pyvirt.devices.backend import boolean
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot

on_off_auto = fields.choice("on", "off", "auto")


@frozen
class Xhci(Attached):
    """USB 3, with 1.1 and 2.0 on the same ports: `p2` and `p3` count those of USB 2 and 3.

    `intrs`, `slots`, `msi` and `msix` belong to NEC's model.
    """

    model: str = field(default="qemu-xhci", validator=fields.choice("qemu-xhci", "nec-usb-xhci"))
    p2: int = field(default=15, validator=fields.between(1, 15), kw_only=True)
    p3: int = field(default=15, validator=fields.between(1, 15), kw_only=True)
    streams: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)
    msi: str | None = field(default=None, validator=fields.optional(on_off_auto), kw_only=True)
    msix: str | None = field(default=None, validator=fields.optional(on_off_auto), kw_only=True)
    intrs: int | None = field(
        default=None, validator=fields.optional(fields.between(1, 16)), kw_only=True
    )
    slots: int | None = field(
        default=None, validator=fields.optional(fields.between(1, 64)), kw_only=True
    )

    PREFIX = "xhci"

    def __attrs_post_init__(self) -> None:
        nec = {"msi": self.msi, "msix": self.msix, "intrs": self.intrs, "slots": self.slots}
        only_for("model", ("nec-usb-xhci",), self.model, **nec)

    @property
    def driver(self) -> str:
        return self.model

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.device(
            self.model,
            at,
            p2=self.p2,
            p3=self.p3,
            streams=self.streams,
            msi=self.msi,
            msix=self.msix,
            intrs=self.intrs,
            slots=self.slots,
        )


ICH9_UHCI = tuple(f"ich9-usb-uhci{number}" for number in range(1, 7))
ICH9_EHCI = ("ich9-usb-ehci1", "ich9-usb-ehci2")


@frozen
class Uhci(Attached):
    """USB 1.1. With `masterbus`, a companion that serves an EHCI's ports from `firstport` on.

    The EHCI must be an ICH9 one and come first: `Ich9Usb` is one with its companions.
    """

    model: str = field(
        default="piix3-usb-uhci",
        validator=fields.choice("piix3-usb-uhci", "piix4-usb-uhci", *ICH9_UHCI),
    )
    masterbus: str | None = field(
        default=None, validator=fields.optional(fields.text), kw_only=True
    )
    firstport: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 5)), kw_only=True
    )
    bandwidth: int | None = field(
        default=None, validator=fields.optional(fields.positive), kw_only=True
    )
    maxframes: int | None = field(
        default=None, validator=fields.optional(fields.positive), kw_only=True
    )

    PREFIX, UNPLUGGABLE = "uhci", False  # QEMU's UHCI is hotpluggable = false

    def __attrs_post_init__(self) -> None:
        if self.firstport is not None and self.masterbus is None:
            raise SpecError("firstport", "must come with masterbus", self.firstport)

    @property
    def driver(self) -> str:
        return self.model

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.device(
            self.model,
            at,
            masterbus=self.masterbus,
            firstport=self.firstport,
            bandwidth=self.bandwidth,
            maxframes=self.maxframes,
        )


@frozen
class Ohci(Attached):
    """USB 1.1 of the other kind. With `masterbus`, a companion of an ICH9 EHCI."""

    num_ports: int = field(default=15, validator=fields.between(1, 15))
    masterbus: str | None = field(
        default=None, validator=fields.optional(fields.text), kw_only=True
    )
    firstport: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 5)), kw_only=True
    )

    PREFIX, DRIVER, UNPLUGGABLE = "ohci", "pci-ohci", False

    def __attrs_post_init__(self) -> None:
        if self.firstport is not None and self.masterbus is None:
            raise SpecError("firstport", "must come with masterbus", self.firstport)

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.device(
            self.DRIVER,
            at,
            num_ports=self.num_ports,
            masterbus=self.masterbus,
            firstport=self.firstport,
        )


@frozen
class Ehci(Attached):
    """USB 2. Slow devices need companions: `Ich9Usb` is an EHCI that has them."""

    model: str = field(default="usb-ehci", validator=fields.choice("usb-ehci", *ICH9_EHCI))
    maxframes: int | None = field(
        default=None, validator=fields.optional(fields.positive), kw_only=True
    )

    PREFIX = "ehci"

    @property
    def driver(self) -> str:
        return self.model

    @property
    def slot(self) -> Slot:
        unpluggable = self.model == "usb-ehci"  # QEMU keeps the chipset's where they are
        return Slot("pci", address=self.address, unpluggable=unpluggable, driver=self.model)

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.device(self.model, at, maxframes=self.maxframes)


@frozen(kw_only=True)
class Ich9Usb(Attached):
    """An ICH9's EHCI with its three UHCI companions, which share one slot as on the board."""

    PREFIX, DRIVER, UNPLUGGABLE = "ehci", "ich9-usb-ehci1", False

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self._function(self.DRIVER, at, at.name, 7, {**self.properties})
        for number in range(3):
            given = {"masterbus": f"{at.name}.0", "firstport": 2 * number}
            # Function 0 says that there are others, so that the guest looks for them.
            several = {"multifunction": True} if number == 0 else {}
            uhci = ICH9_UHCI[number]
            yield self._function(uhci, at, f"{at.name}-uhci{number}", number, {**given, **several})

    def _function(
        self, driver: str, at: At, id: str, number: int, given: Mapping[str, Any]
    ) -> Option:
        slot = str(at.place.get("addr", "0x0")).partition(".")[0]
        place = {**at.place, "addr": f"{slot}.0x{number}"}
        return Option("device", {"driver": driver, "id": id, **place, **given})
