"""A disk, on any bus a PC has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.disk.backend import default_format
from pyvirt.disk.bus import BUSES
from pyvirt.disk.drive import Drive, file, to_file, to_wwn
from pyvirt.disk.format import FROM_IMAGE, BackingNode, to_backing
from pyvirt.disk.node import BlockNode
from pyvirt.disk.secret import Secret, to_secret
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At

_flag = fields.optional(fields.kind(bool))
_text = fields.optional(fields.text)


def _power_of_two(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value & (value - 1):
        raise SpecError(field.name, "must be a power of two", value)


def _iothread(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not True:
        fields.name(instance, field, value)


def _block_size() -> Any:
    return field(
        default=None,
        converter=fields.to_size,
        validator=fields.optional([fields.between(512, 2 << 20), _power_of_two]),
        kw_only=True,
    )


def _io_size() -> Any:
    return field(
        default=None,
        converter=fields.to_size,
        validator=fields.optional(fields.between(0, 2**32 - 1)),
        kw_only=True,
    )


def _number(low: int, high: int) -> Any:
    return field(default=None, validator=fields.optional(fields.between(low, high)), kw_only=True)


@frozen
class Disk(Drive):
    """A disk: the image `file` of `format`, as a device on `bus`.

    The format is never guessed from the image: it is qcow2 for files, raw for devices and
    network nodes, unless said. `backing` is the node below the image: by default the one
    that the image names, None for none; `key` opens an encrypted one. The bus is virtio,
    nvme, scsi, sata, ide, usb, sd or floppy; `driver` chooses among its devices
    ("scsi-block" passes a host's SCSI disk through).

    `snapshot` sends all writes to a temporary image that ends with the run.
    `copy_on_read` copies what is read from the backing image. `iothread` is True for one
    of its own, or the id of one of the VM. `queues` counts virtqueues, or queue pairs of
    NVMe. `rotation_rate` is in revolutions a minute, 1 for an SSD. Sizes are bytes.

    Raises `SpecError` for a combination that QEMU refuses, with the reason.
    """

    file: str | BlockNode = field(converter=to_file, validator=file)
    format: str = field(validator=fields.name)
    bus: str = field(default="virtio", validator=fields.choice(*BUSES), kw_only=True)
    backing: BackingNode = field(default=FROM_IMAGE, converter=to_backing, kw_only=True)
    key: Secret | None = field(default=None, converter=to_secret, kw_only=True)

    readonly: bool = field(default=False, validator=fields.kind(bool), kw_only=True)
    snapshot: bool = field(default=False, validator=fields.kind(bool), kw_only=True)
    copy_on_read: bool = field(default=False, validator=fields.kind(bool), kw_only=True)
    discard: str | None = field(
        default=None, validator=fields.optional(fields.choice("ignore", "unmap")), kw_only=True
    )
    detect_zeroes: str | None = field(
        default=None, validator=fields.optional(fields.choice("off", "on", "unmap")), kw_only=True
    )

    iothread: bool | str | None = field(
        default=None, validator=fields.optional(_iothread), kw_only=True
    )
    queues: int | None = _number(1, 65535)
    queue_size: int | None = field(
        default=None,
        validator=fields.optional([fields.between(4, 1024), _power_of_two]),
        kw_only=True,
    )
    packed: bool | None = field(default=None, validator=_flag, kw_only=True)

    serial: str | None = field(default=None, validator=_text, kw_only=True)
    wwn: int | str | None = field(
        default=None,
        converter=to_wwn,
        validator=fields.optional(fields.between(1, 2**64 - 1)),
        kw_only=True,
    )
    vendor: str | None = field(default=None, validator=_text, kw_only=True)
    product: str | None = field(default=None, validator=_text, kw_only=True)
    model: str | None = field(default=None, validator=_text, kw_only=True)
    ver: str | None = field(default=None, validator=_text, kw_only=True)
    rotation_rate: int | None = _number(0, 65535)
    removable: bool | None = field(default=None, validator=_flag, kw_only=True)
    dpofua: bool | None = field(default=None, validator=_flag, kw_only=True)

    logical_block_size: int | str | None = _block_size()
    physical_block_size: int | str | None = _block_size()
    min_io_size: int | str | None = _io_size()
    opt_io_size: int | str | None = _io_size()
    discard_granularity: int | str | None = _io_size()
    cyls: int | None = _number(1, 65535)
    heads: int | None = _number(1, 255)
    secs: int | None = _number(1, 255)

    werror: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("report", "ignore", "enospc", "stop", "auto")),
        kw_only=True,
    )
    rerror: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("report", "ignore", "stop", "auto")),
        kw_only=True,
    )

    prefix: ClassVar[str] = "disk"

    @format.default
    def _default_format(self) -> str:
        return default_format(self.file)

    def __attrs_post_init__(self) -> None:
        if self.queues is not None and self.bus == "virtio" and self.queues > 1024:
            raise SpecError("queues", "must be from 1 to 1024 on virtio-blk", self.queues)
        super().__attrs_post_init__()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        size: int | str | None = None,
        format: str = "qcow2",
        **options: Any,
    ) -> Self:
        """Make an image of `size` bytes ("10G") with ``qemu-img``, and describe it as a disk.

        `options` are those of `pyvirt.image.create`: of the format (`cluster_size`,
        `preallocation`, `encrypt`, ...), `backing` with its `backing_format`, `overwrite`,
        `progress`. Everything else of the disk is said with `attrs.evolve`.
        """
        from pyvirt.running import tools

        made = tools.create(path, size, format, **options)
        encrypt: Any = options.get("encrypt")
        return cls(os.fspath(made), format, key=getattr(encrypt, "key", encrypt))

    @property
    def reads_only(self) -> bool:
        return self.readonly

    @property
    def temporary(self) -> bool:
        return self.snapshot

    def options(self, at: At) -> Iterator[Option | Need]:
        """Its secrets and limits, its nodes, its I/O thread, and then the device."""
        if self.iothread is True:
            own = {"qom-type": "iothread", "id": f"{at.name}-iothread"}
            yield Option("object", own, "iothread")
        yield from super().options(at)

    def _device(self, at: At) -> dict[str, Any]:
        given = super()._device(at)
        if self.iothread is True:
            given["iothread"] = f"{at.name}-iothread"
        if self.bus == "nvme":
            given.setdefault("serial", at.name[:20])  # NVMe knows no drive without one.
        return given
