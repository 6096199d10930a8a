"""A cloud-init seed: the small disk from which a cloud image learns who it is (NoCloud)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.devices import yamljson
from pyvirt.devices.attached import Attached
from pyvirt.devices.iso9660 import image
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need, TemporaryFile
from pyvirt.qemu.option import Late, Option
from pyvirt.qemu.part import At, Slot

Content = Mapping[str, Any] | str | bytes


def _content(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping | str | bytes):
        raise SpecError(attribute.name, "must be a mapping, text or bytes", value)


@frozen
class Seed(Attached):
    """A read-only disk labelled ``cidata``, made when the VM starts, for cloud-init.

    Each content is a mapping, or the file's text or bytes as they are. A mapping as
    `user_data` is cloud-config. Without an instance-id in `meta_data` one is derived from
    all contents, so that cloud-init runs again when they change. `bus` is "virtio", "scsi",
    "sata", "ide" (these three: a CD-ROM) or "usb".
    """

    user_data: Content = field(default="", validator=_content)
    network_config: Content | None = field(
        default=None, validator=fields.optional(_content), kw_only=True
    )
    meta_data: Content = field(factory=dict, validator=_content, kw_only=True)
    vendor_data: Content | None = field(
        default=None, validator=fields.optional(_content), kw_only=True
    )
    bus: str = field(
        default="virtio",
        validator=fields.choice("virtio", "scsi", "sata", "ide", "usb"),
        kw_only=True,
    )

    PREFIX = "seed"
    GROUP = "disk"
    DRIVERS: ClassVar[Mapping[str, str]] = {
        "virtio": "virtio-blk-pci",
        "scsi": "scsi-cd",
        "sata": "ide-cd",
        "ide": "ide-cd",
        "usb": "usb-storage",
    }

    def __attrs_post_init__(self) -> None:
        self.files()

    @property
    def driver(self) -> str:
        return self.DRIVERS[self.bus]

    @property
    def slot(self) -> Slot:
        return Slot(
            "pci" if self.bus == "virtio" else self.bus,
            group=self.GROUP,
            address=self.address,
            unpluggable=self.bus not in {"sata", "ide"},
            driver=self.driver,
        )

    def files(self) -> dict[str, bytes]:
        """The files on it, by name."""
        files = {"user-data": self._user_data()}
        for name in ("network_config", "vendor_data"):
            value = getattr(self, name)
            if value is not None:
                head = "#cloud-config\n" if name == "vendor_data" else ""
                files[name.replace("_", "-")] = _bytes(value, name, head)
        return {**files, "meta-data": self._meta_data(files)}

    def image(self) -> bytes:
        """The ISO 9660 image."""
        return image(self.files(), "cidata")

    def options(self, at: At) -> Iterator[Option | Need]:
        content = f"{at.name}-image"
        yield TemporaryFile(content, content=self.image(), suffix=".iso")

        file = {"driver": "file", "node-name": f"{at.name}-file", "filename": Late(content)}
        yield Option("blockdev", {**file, "read-only": True})
        raw = {"driver": "raw", "node-name": f"{at.name}-format", "file": f"{at.name}-file"}
        yield Option("blockdev", {**raw, "read-only": True})
        driver = at.virtio("blk") if self.bus == "virtio" else self.driver
        yield self.device(driver, at, drive=f"{at.name}-format")

    def _user_data(self) -> bytes:
        return _bytes(self.user_data, "user_data", "#cloud-config\n")

    def _meta_data(self, others: Mapping[str, bytes]) -> bytes:
        if not isinstance(self.meta_data, Mapping):
            return _bytes(self.meta_data, "meta_data")
        if "instance-id" in self.meta_data:
            return _bytes(self.meta_data, "meta_data")
        own = _bytes(self.meta_data, "meta_data")
        digest = hashlib.sha256(repr((sorted(others.items()), own)).encode()).hexdigest()
        return _bytes({"instance-id": f"pyvirt-{digest[:16]}", **self.meta_data}, "meta_data")


def _bytes(value: Content, name: str, head: str = "") -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise SpecError(name, "must be text that UTF-8 can hold", value) from None
    return f"{head}{yamljson.dumps(value, name)}\n".encode()
