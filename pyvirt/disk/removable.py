"""Drives whose medium comes and goes: CD-ROM and floppy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from attrs import field

from pyvirt import fields
from pyvirt.disk.bus import BUSES
from pyvirt.disk.drive import Drive, to_wwn
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At

_text = fields.optional(fields.text)


@frozen
class CDROM(Drive):
    """A CD-ROM drive with the ISO image `file`, or empty.

    It is always read-only, so several VMs can share an image. The bus is sata, ide or scsi.
    """

    bus: str = field(default="sata", validator=fields.choice("sata", "ide", "scsi"), kw_only=True)
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

    prefix: ClassVar[str] = "cdrom"

    @property
    def drivers(self) -> tuple[str, ...]:
        return (BUSES[self.bus].cdrom or "",)

    @property
    def reads_only(self) -> bool:
        return True


@frozen
class Floppy(Drive):
    """A floppy drive with the image `file`, or empty.

    `drive_type` is the drive's: 144, 288, 120 (in units of 10 KiB), none, or auto.
    """

    bus: str = field(default="floppy", validator=fields.choice("floppy"), kw_only=True)
    readonly: bool = field(default=False, validator=fields.kind(bool), kw_only=True)
    drive_type: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("144", "288", "120", "none", "auto")),
        kw_only=True,
    )

    prefix: ClassVar[str] = "floppy"

    @property
    def reads_only(self) -> bool:
        return self.readonly

    def options(self, at: At) -> Iterator[Option | Need]:
        """The nodes and the device; the boot order of floppies is with their controller."""
        yield from super().options(at)
        if self.bootindex is not None:
            letter = "B" if at.place.get("unit") == 1 else "A"
            own = {"driver": "isa-fdc", "property": f"bootindex{letter}", "value": self.bootindex}
            yield Option("global", own, "bootindex")

    def _device(self, at: At) -> dict[str, Any]:
        given = super()._device(at)
        given.pop("bootindex", None)
        return given
