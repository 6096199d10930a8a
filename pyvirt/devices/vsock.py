"""virtio-vsock: sockets between the guest and its host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached
from pyvirt.fields import frozen
from pyvirt.qemu.need import HostPath, Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At


@frozen
class Vsock(Attached):
    """The host kernel's vhost-vsock; `guest_cid` is the guest's address, unique on the host.

    0, 1 and 2 are the hypervisor, the loopback and the host.
    """

    guest_cid: int = field(validator=fields.between(3, 0xFFFFFFFE))
    seqpacket: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("on", "off", "auto")),
        kw_only=True,
    )

    PREFIX, DRIVER = "vsock", "vhost-vsock-pci"

    def options(self, at: At) -> Iterator[Option | Need]:
        hint = "load the kernel module vhost_vsock"
        yield HostPath(f"{at.name}-host", Path("/dev/vhost-vsock"), hint=hint)
        driver = at.virtio("vsock").replace("virtio-", "vhost-", 1)
        yield self.device(driver, at, guest_cid=self.guest_cid, seqpacket=self.seqpacket)
