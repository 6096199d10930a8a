"""USB: controllers of every generation and what is plugged into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached, only_for
from pyvirt.devices.backend import Backend, Piped, boolean, chardev_id
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import HostPath, Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot

on_off_auto = fields.choice("on", "off", "auto")
unsigned = fields.between(0, 0xFFFFFFFF)
word = fields.between(0, 0xFFFF)


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


@frozen(kw_only=True)
class UsbDevice(Attached):
    """What all USB devices share.

    `controller` is the id of the controller, `port` its port ("2", or "2.1" behind a hub).
    `pcap` records the device's traffic to a file.
    """

    controller: str = field(default="", validator=fields.text)
    port: str | None = field(default=None, validator=fields.optional(fields.text))
    pcap: Path | None = field(default=None, converter=fields.to_path)

    BUS = "usb"

    @property
    def slot(self) -> Slot:
        port = {} if self.port is None else {"port": self.port}
        address = {**port, **self.address}
        return Slot("usb", controller=self.controller, address=address, driver=self.DRIVER)

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.plugged(at)

    def plugged(self, at: At, **given: Any) -> Option:
        """``-device`` of this device."""
        pcap = None if self.pcap is None else str(self.pcap)
        return self.device(self.DRIVER, at, pcap=pcap, **given)


@frozen(kw_only=True)
class UsbInput(UsbDevice):
    """What keyboard, mouse and tablet share. `usb_version` is 1 or 2."""

    usb_version: int | None = field(default=None, validator=fields.optional(fields.choice(1, 2)))

    PREFIX = "input"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.pointing(at)

    def pointing(self, at: At, **given: Any) -> Option:
        """``-device`` of this device; `usb_version` is spelled with its underline."""
        pcap = None if self.pcap is None else str(self.pcap)
        return self.literal(
            self.DRIVER, at, {"pcap": pcap, "usb_version": self.usb_version, **given}
        )


@frozen(kw_only=True)
class UsbTablet(UsbInput):
    """A pointer with absolute positions, so that the host's and the guest's agree.

    `display` is the id of the card whose screen `head` it points at.
    """

    display: str | None = field(default=None, validator=fields.optional(fields.name))
    head: int | None = field(default=None, validator=fields.optional(unsigned))

    DRIVER = "usb-tablet"

    def __attrs_post_init__(self) -> None:
        if self.head is not None and self.display is None:
            raise SpecError("head", "must come with display", self.head)

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.pointing(at, display=self.display, head=self.head)


@frozen(kw_only=True)
class UsbMouse(UsbInput):
    """A mouse, which moves by steps."""

    DRIVER = "usb-mouse"


@frozen(kw_only=True)
class UsbKeyboard(UsbInput):
    """A keyboard. `display` is the id of the card whose keys it gets."""

    display: str | None = field(default=None, validator=fields.optional(fields.name))

    DRIVER = "usb-kbd"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.pointing(at, display=self.display)


@frozen(kw_only=True)
class UsbWacomTablet(UsbDevice):
    """A Wacom PenPartner tablet."""

    PREFIX, DRIVER = "input", "usb-wacom-tablet"


@frozen(kw_only=True)
class UsbHub(UsbDevice):
    """A hub of `ports` ports (USB 1.1)."""

    ports: int | None = field(default=None, validator=fields.optional(fields.between(1, 8)))
    port_power: bool | None = field(default=None, validator=fields.optional(boolean))

    PREFIX, DRIVER = "hub", "usb-hub"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.plugged(at, ports=self.ports, port_power=self.port_power)


@frozen(kw_only=True)
class UsbHost(UsbDevice):
    """A device of the host's: by `vendorid` and `productid`, by place, or by `hostdevice`.

    The place is `hostbus` with `hostaddr` or `hostport` ("1.2"). `hostdevice` is a file such
    as ``/dev/bus/usb/001/004``. QEMU waits for a device that is not there yet.
    """

    vendorid: int | None = field(default=None, validator=fields.optional(word))
    productid: int | None = field(default=None, validator=fields.optional(word))
    hostbus: int | None = field(default=None, validator=fields.optional(unsigned))
    hostaddr: int | None = field(default=None, validator=fields.optional(fields.between(0, 127)))
    hostport: str | None = field(default=None, validator=fields.optional(fields.text))
    hostdevice: Path | None = field(default=None, converter=fields.to_path)
    guest_reset: bool | None = field(default=None, validator=fields.optional(boolean))
    guest_resets_all: bool | None = field(default=None, validator=fields.optional(boolean))
    pipeline: bool | None = field(default=None, validator=fields.optional(boolean))
    isobufs: int | None = field(default=None, validator=fields.optional(unsigned))
    isobsize: int | None = field(default=None, validator=fields.optional(unsigned))
    suppress_remote_wake: bool | None = field(default=None, validator=fields.optional(boolean))
    loglevel: int | None = field(default=None, validator=fields.optional(fields.between(0, 4)))
    bootindex: int | None = field(default=None, validator=fields.optional(unsigned))

    PREFIX, DRIVER = "usbhost", "usb-host"

    def __attrs_post_init__(self) -> None:
        which = (self.vendorid, self.hostbus, self.hostaddr, self.hostport, self.hostdevice)
        if all(value is None for value in which):
            raise SpecError("vendorid", "or a place on the host must say which device", None)
        if self.hostdevice is not None and any(value is not None for value in which[:-1]):
            raise SpecError("hostdevice", "names the device by itself", str(self.hostdevice))
        if self.productid is not None and self.vendorid is None:
            raise SpecError("productid", "must come with vendorid", self.productid)

    def options(self, at: At) -> Iterator[Option | Need]:
        yield HostPath(f"{at.name}-host", Path("/dev/bus/usb"), hint="this host has no USB")
        yield self.plugged(
            at,
            vendorid=self.vendorid,
            productid=self.productid,
            hostbus=self.hostbus,
            hostaddr=self.hostaddr,
            hostport=self.hostport,
            hostdevice=None if self.hostdevice is None else str(self.hostdevice),
            guest_reset=self.guest_reset,
            guest_resets_all=self.guest_resets_all,
            pipeline=self.pipeline,
            isobufs=self.isobufs,
            isobsize=self.isobsize,
            suppress_remote_wake=self.suppress_remote_wake,
            loglevel=self.loglevel,
            bootindex=self.bootindex,
        )


@frozen
class UsbRedir(UsbDevice):
    """A device that a usbredir peer (or the SPICE client) sends over `backend`.

    `filter` is usbredir's rules: "-1:-1:-1:-1:1" lets everything in.
    """

    backend: Backend = field(factory=Piped, validator=fields.kind(Backend))
    filter: str | None = field(default=None, validator=fields.optional(fields.text), kw_only=True)
    streams: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)
    bootindex: int | None = field(default=None, validator=fields.optional(unsigned), kw_only=True)
    debug: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 5)), kw_only=True
    )

    PREFIX, DRIVER = "redir", "usb-redir"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.backend.options(at.name)
        yield self.plugged(
            at,
            chardev=chardev_id(at.name),
            filter=self.filter,
            streams=self.streams,
            bootindex=self.bootindex,
            debug=self.debug,
        )


@frozen(kw_only=True)
class SmartCardReader(UsbDevice):
    """A CCID reader. With a `backend` it holds the card at the other end of it.

    With `certificates` (three names in the NSS database `db`) it holds an emulated card.
    Without either it is empty.
    """

    backend: Backend | None = field(default=None, validator=fields.optional(fields.kind(Backend)))
    certificates: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.text)
    )
    db: Path | None = field(default=None, converter=fields.to_path)

    PREFIX, DRIVER = "ccid", "usb-ccid"

    def __attrs_post_init__(self) -> None:
        if len(self.certificates) not in {0, 3}:
            raise SpecError("certificates", "must be three names", self.certificates)
        if self.certificates and self.backend is not None:
            raise SpecError("certificates", "cannot be combined with backend", self.certificates)
        if self.db is not None and not self.certificates:
            raise SpecError("db", "must come with certificates", str(self.db))

    def options(self, at: At) -> Iterator[Option | Need]:
        if self.backend is not None:
            yield from self.backend.options(at.name)
        yield self.plugged(at)
        card = {"id": f"{at.name}-card", "bus": f"{at.name}.0"}
        if self.backend is not None:
            chardev = {"chardev": chardev_id(at.name)}
            yield Option("device", {"driver": "ccid-card-passthru", **card, **chardev})
        if self.certificates:
            yield Option("device", {"driver": "ccid-card-emulated", **card, **self._emulated()})

    def _emulated(self) -> dict[str, Any]:
        names = {f"cert{i}": name for i, name in enumerate(self.certificates, 1)}
        db = {} if self.db is None else {"db": str(self.db)}
        return {"backend": "certificates", **names, **db}


@frozen
class UsbMtp(UsbDevice):
    """The folder `rootdir` as a media player's; called `desc` in the guest."""

    rootdir: Path = field(converter=Path)
    desc: str | None = field(default=None, validator=fields.optional(fields.text), kw_only=True)
    readonly: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)

    PREFIX, DRIVER = "mtp", "usb-mtp"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.plugged(at, rootdir=str(self.rootdir), desc=self.desc, readonly=self.readonly)
