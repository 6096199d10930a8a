"""What is plugged into USB: input devices, hubs, smart cards, devices of the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached
from pyvirt.devices.backend import Backend, Piped, boolean, chardev_id
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import HostPath, Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot

unsigned = fields.between(0, 0xFFFFFFFF)
word = fields.between(0, 0xFFFF)


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
