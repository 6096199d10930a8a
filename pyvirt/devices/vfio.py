"""Host PCI devices given to the guest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached
from pyvirt.devices.backend import boolean
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import HostPath, Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At

_HOST = re.compile(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])", re.IGNORECASE)


def _to_host(value: Any) -> str | None:
    """A PCI address with its domain, in lower case."""
    if value is None:
        return None
    match = _HOST.fullmatch(str(value))
    if match is None:
        raise SpecError("host", "must be a PCI address such as 0000:01:00.0", value)
    return f"{match[1] or '0000'}:{match[2]}".lower()


@frozen
class VfioPci(Attached):
    """The host's PCI device at `host`, which must be bound to the driver vfio-pci.

    A start is refused, saying what is missing, where the host has no VFIO (no IOMMU, or the
    module is not loaded) or another driver holds the device. `sysfsdev` names a mediated
    device instead. `multifunction` and the like are `properties`.
    """

    host: str | None = field(default=None, converter=_to_host)
    sysfsdev: Path | None = field(default=None, converter=fields.to_path, kw_only=True)
    display: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("on", "off", "auto")),
        kw_only=True,
    )
    romfile: Path | None = field(default=None, converter=fields.to_path, kw_only=True)
    rombar: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)
    bootindex: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 0x7FFFFFFF)), kw_only=True
    )

    PREFIX, DRIVER = "vfio", "vfio-pci"

    def __attrs_post_init__(self) -> None:
        if (self.host is None) == (self.sysfsdev is None):
            raise SpecError("host", "or sysfsdev must be given, and not both", self.host)

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self._needs(at)
        yield self.device(
            self.DRIVER,
            at,
            host=self.host,
            sysfsdev=None if self.sysfsdev is None else str(self.sysfsdev),
            display=self.display,
            romfile=None if self.romfile is None else str(self.romfile),
            rombar=None if self.rombar is None else int(self.rombar),
            bootindex=self.bootindex,
        )

    def _needs(self, at: At) -> Iterator[Need]:
        hint = "enable the IOMMU (intel_iommu=on or amd_iommu=on) and load vfio-pci"
        yield HostPath(f"{at.name}-vfio", Path("/dev/vfio/vfio"), hint=hint)
        device = self.sysfsdev or Path("/sys/bus/pci/devices", str(self.host))
        hint = "see lspci -D for the devices of this host"
        yield HostPath(f"{at.name}-host", device, hint=hint)
        hint = "without an IOMMU group it cannot be given to a guest"
        yield HostPath(f"{at.name}-group", device / "iommu_group", hint=hint)
        if self.host is not None:
            hint = f"bind it: driverctl set-override {self.host} vfio-pci"
            yield HostPath(f"{at.name}-driver", device / "driver", target="vfio-pci", hint=hint)
