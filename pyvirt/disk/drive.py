"""What disks, CD-ROMs and floppies share: a file behind, a device in front, a place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from attrs import field

from pyvirt import fields
from pyvirt.disk.backend import CACHES, nodes
from pyvirt.disk.bus import BUSES, DRIVERS
from pyvirt.disk.filename import filename
from pyvirt.disk.local import AIO
from pyvirt.disk.node import BlockNode
from pyvirt.disk.rules import DEVICE_FIELDS, check
from pyvirt.disk.throttle import Throttle
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot

#: The device's half of each cache mode: whether the guest sees a cache that it must flush.
WRITE_CACHE = {
    "none": "on",
    "writeback": "on",
    "writethrough": "off",
    "directsync": "off",
    "unsafe": "on",
}

#: Controllers on which a drive without a WWN has no address, and no guest finds it.
SAS = frozenset({"mptsas1068"})

#: Directories of /dev whose files are no devices.
_FILES_IN_DEV = ("/dev/shm/", "/dev/fdset/", "/dev/hugepages/", "/dev/mqueue/")


def to_file(value: str | os.PathLike[str] | BlockNode | None) -> str | BlockNode | None:
    """Converter of a drive's file: the text of a path, or a node as it is."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def file(instance: Any, field: Any, value: Any) -> None:
    """Validator of a drive's file."""
    if isinstance(value, BlockNode):
        return
    filename(instance, field, value)
    if value.startswith("/dev/") and not value.startswith(_FILES_IN_DEV):
        raise SpecError(field.name, "is a device: write HostDevice(…) or File(…)", value)


def _throttle(instance: Any, field: Any, value: Any) -> None:
    if isinstance(value, str):
        fields.name(instance, field, value)
    elif not isinstance(value, Throttle):
        raise SpecError(field.name, "must be a Throttle or the id of a ThrottleGroup", value)


def to_wwn(value: int | str | None) -> int | None:
    """Converter: a WWN may be written as text, "0x5000c50015ea71ac"."""
    try:
        return int(value, 16) if isinstance(value, str) else value
    except ValueError:
        raise SpecError("wwn", "must be 64 bits, in hexadecimal when text", value) from None


def derived_wwn(name: str) -> int:
    """The WWN of the drive `name` of a VM: locally assigned (NAA 3), the same at each start."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return 3 << 60 | int.from_bytes(digest[:8], "big") >> 4


_flag = fields.optional(fields.kind(bool))


@frozen
class Drive:
    """A device that holds an image or a medium.

    `file` is a path, or a node for anything that is no plain file. `bus` is where the
    device hangs, `controller` a model or the id of the one to hang it on, which it has to
    itself when `alone`; `address` pins its place in the bus's own words.

    `cache` is none, writeback, writethrough, directsync or unsafe; `aio` is threads, native or
    io_uring. `throttle` limits it: a `Throttle` of its own, or the id of a `ThrottleGroup`.
    `locking` is that of the image file (auto, on, off). `properties` are more of QEMU's
    properties for the device; they win over what the fields say.
    """

    file: str | BlockNode | None = field(
        default=None, converter=to_file, validator=fields.optional(file)
    )
    format: str = field(default="raw", validator=fields.name)
    id: str | None = field(default=None, validator=fields.optional(fields.name), kw_only=True)
    bus: str = field(default="", validator=fields.choice(*BUSES), kw_only=True)
    controller: str = field(default="", validator=fields.text, kw_only=True)
    alone: bool = field(default=False, validator=fields.kind(bool), kw_only=True)
    address: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping), kw_only=True)
    driver: str | None = field(default=None, validator=fields.optional(fields.name), kw_only=True)
    cache: str | None = field(
        default=None, validator=fields.optional(fields.choice(*CACHES)), kw_only=True
    )
    aio: str | None = field(
        default=None, validator=fields.optional(fields.choice(*AIO)), kw_only=True
    )
    locking: str | None = field(
        default=None, validator=fields.optional(fields.choice("auto", "on", "off")), kw_only=True
    )
    throttle: Throttle | str | None = field(
        default=None, validator=fields.optional(_throttle), kw_only=True
    )
    share_rw: bool | None = field(default=None, validator=_flag, kw_only=True)
    bootindex: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 2**31 - 1)), kw_only=True
    )
    properties: Mapping[str, Any] = field(
        factory=dict, validator=fields.kind(Mapping), kw_only=True
    )

    #: How generated names begin.
    prefix: ClassVar[str] = "disk"

    def __attrs_post_init__(self) -> None:
        check(self)
        # Names that grow too long, and what a node says as well, show in the options alone.
        for _ in self.options(At(self.id or f"{self.prefix}0")):
            pass

    @property
    def drivers(self) -> tuple[str, ...]:
        """The devices it can be on its bus, the usual one first."""
        return BUSES[self.bus].disks

    @property
    def kind(self) -> str:
        """The name of its device, whatever the transport ("virtio-blk")."""
        if self.driver is None:
            return self.drivers[0]
        return "virtio-blk" if self.driver.startswith("virtio-blk-") else self.driver

    @property
    def reads_only(self) -> bool:
        """Whether the guest can only read it."""
        return False

    @property
    def temporary(self) -> bool:
        """Whether what the guest writes is forgotten at the end."""
        return False

    @property
    def slot(self) -> Slot:
        """The kind of place it wants."""
        bus = BUSES[self.bus]
        return Slot(
            bus.slot,
            controller=self.controller,
            alone=self.alone,
            group="disk",
            address=self.address,
            unpluggable=bus.unpluggable,
            driver=self._driver(At("")),
        )

    def options(self, at: At) -> Iterator[Option | Need]:
        """The nodes, if there is a medium, and then the device."""
        properties = {"driver": self._driver(at), "id": at.name, **at.place}
        if self.file is not None:
            properties["drive"] = yield from nodes(self, at.name)
        properties |= self._device(at)
        yield Option("device", {**properties, **self.properties})

    def medium(self, name: str) -> Iterator[Option | Need]:
        """The nodes alone, with names that begin with `name`: to put into a running guest."""
        if self.file is None:
            raise SpecError("file", "must be given for a medium", None)
        yield from nodes(self, name)

    def _driver(self, at: At) -> str:
        if self.driver is None and self.kind == "virtio-blk":
            return at.virtio("blk")
        return self.driver or self.kind

    def _device(self, at: At) -> dict[str, Any]:
        """The properties of the device that come from fields."""
        driver = DRIVERS[self.kind]
        given = {
            driver.word(name): value
            for name in DEVICE_FIELDS
            if (value := getattr(self, name, None)) is not None
        }
        if self.cache is not None and "cache" in driver.fields:
            given[driver.word("cache")] = WRITE_CACHE[self.cache]
        if self.controller in SAS and "wwn" in driver.fields:
            given.setdefault("wwn", derived_wwn(at.name))
        return given
