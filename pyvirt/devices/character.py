"""Ports that carry characters: serial, parallel, virtio-serial, the debug console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached, only_for
from pyvirt.devices.backend import Backend, Captured, Piped, boolean, chardev_id
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot

is_backend = fields.kind(Backend)
unsigned = fields.between(0, 0xFFFFFFFF)


@frozen
class Serial(Attached):
    """A serial port: by default one of the PC's own, whose output QEMU writes down.

    `index` (0 is COM1) implies `iobase` and `irq`; "pci-serial" and "usb-serial" may be
    plugged. `wakeup` lets a character wake the guest.
    """

    backend: Backend = field(factory=Captured, validator=is_backend)
    model: str = field(
        default="isa-serial",
        validator=fields.choice("isa-serial", "pci-serial", "usb-serial"),
        kw_only=True,
    )
    index: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 3)), kw_only=True
    )
    iobase: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 0xFFFF)), kw_only=True
    )
    irq: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 15)), kw_only=True
    )
    baudbase: int | None = field(
        default=None, validator=fields.optional(fields.positive), kw_only=True
    )
    wakeup: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)
    always_plugged: bool | None = field(
        default=None, validator=fields.optional(boolean), kw_only=True
    )

    PREFIX = "serial"
    BUSES: ClassVar[Mapping[str, str]] = {
        "isa-serial": "isa",
        "pci-serial": "pci",
        "usb-serial": "usb",
    }

    def __attrs_post_init__(self) -> None:
        isa = {"index": self.index, "iobase": self.iobase, "irq": self.irq}
        only_for("model", ("isa-serial",), self.model, **isa)
        chip = {"baudbase": self.baudbase, "wakeup": self.wakeup}
        only_for("model", ("isa-serial", "pci-serial"), self.model, **chip)
        only_for("model", ("usb-serial",), self.model, always_plugged=self.always_plugged)

    @property
    def driver(self) -> str:
        return self.model

    @property
    def slot(self) -> Slot:
        bus = self.BUSES[self.model]
        return Slot(bus, address=self.address, unpluggable=bus != "isa", driver=self.driver)

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.backend.options(at.name)
        yield self.device(
            self.model,
            at,
            chardev=chardev_id(at.name),
            index=self.index,
            iobase=self.iobase,
            irq=self.irq,
            baudbase=self.baudbase,
            wakeup=self.wakeup,
            always_plugged=self.always_plugged,
        )


@frozen
class Parallel(Attached):
    """A parallel port. `index` 0 is LPT1."""

    backend: Backend = field(factory=Captured, validator=is_backend)
    index: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 2)), kw_only=True
    )
    iobase: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 0xFFFF)), kw_only=True
    )
    irq: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 15)), kw_only=True
    )

    PREFIX, DRIVER, BUS, UNPLUGGABLE = "parallel", "isa-parallel", "isa", False

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.backend.options(at.name)
        yield self.device(
            self.DRIVER,
            at,
            chardev=chardev_id(at.name),
            index=self.index,
            iobase=self.iobase,
            irq=self.irq,
        )


@frozen(kw_only=True)
class VirtioSerial(Attached):
    """A controller of virtio-serial ports. One is made where ports need it and none is named.

    `max_ports` counts port 0, which is kept for a console.
    """

    max_ports: int | None = field(default=None, validator=fields.optional(fields.between(1, 511)))
    vectors: int | None = field(default=None, validator=fields.optional(unsigned))
    emergency_write: bool | None = field(default=None, validator=fields.optional(boolean))

    PREFIX, DRIVER = "virtio-serial", "virtio-serial-pci"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.literal(
            at.virtio("serial"),
            at,
            {
                "max_ports": self.max_ports,
                "vectors": self.vectors,
                "emergency-write": self.emergency_write,
            },
        )


@frozen
class VirtioSerialPort(Attached):
    """A named channel between guest and host: ``/dev/virtio-ports/<name>`` in Linux.

    `controller` is the id of a `VirtioSerial`, where it matters which.
    """

    name: str = field(validator=fields.text)
    backend: Backend = field(factory=Piped, validator=is_backend)
    nr: int | None = field(
        default=None, validator=fields.optional(fields.between(1, 510)), kw_only=True
    )
    controller: str = field(default="", validator=fields.text, kw_only=True)

    PREFIX, DRIVER, BUS = "port", "virtserialport", "virtio-serial"

    def __attrs_post_init__(self) -> None:
        if not self.name:
            raise SpecError("name", "must not be empty: the guest finds the port by it", self.name)

    @property
    def slot(self) -> Slot:
        return Slot(
            self.BUS, controller=self.controller, address=_numbered(self), driver=self.DRIVER
        )

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.backend.options(at.name)
        yield self.device(self.DRIVER, at, chardev=chardev_id(at.name), name=self.name)


@frozen
class VirtioConsole(Attached):
    """A console over virtio-serial: ``/dev/hvc0`` and on in Linux."""

    backend: Backend = field(factory=Captured, validator=is_backend)
    name: str | None = field(default=None, validator=fields.optional(fields.text), kw_only=True)
    nr: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 510)), kw_only=True
    )
    controller: str = field(default="", validator=fields.text, kw_only=True)

    PREFIX, DRIVER, BUS = "console", "virtconsole", "virtio-serial"

    @property
    def slot(self) -> Slot:
        return Slot(
            self.BUS, controller=self.controller, address=_numbered(self), driver=self.DRIVER
        )

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.backend.options(at.name)
        yield self.device(self.DRIVER, at, chardev=chardev_id(at.name), name=self.name)


def _numbered(port: VirtioSerialPort | VirtioConsole) -> Mapping[str, Any]:
    return port.address if port.nr is None else {"nr": port.nr, **port.address}


@frozen
class DebugConsole(Attached):
    """Port 0xe9, where SeaBIOS and OVMF write their messages (theirs is 0x402).

    Reading the port gives `readback`, by which a guest finds it.
    """

    backend: Backend = field(factory=Captured, validator=is_backend)
    iobase: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 0xFFFF)), kw_only=True
    )
    readback: int | None = field(default=None, validator=fields.optional(unsigned), kw_only=True)

    PREFIX, DRIVER, BUS, UNPLUGGABLE = "debugcon", "isa-debugcon", "isa", False

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.backend.options(at.name)
        yield self.device(
            self.DRIVER,
            at,
            chardev=chardev_id(at.name),
            iobase=self.iobase,
            readback=self.readback,
        )
