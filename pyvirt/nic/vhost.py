"""virtio-net whose rings another process, or hardware, serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import unix_path
from pyvirt.fields import frozen
from pyvirt.nic.backend import Backend, Wire
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option


@frozen
class VhostUser(Backend):
    """A switch in a process of its own (DPDK, VPP, passt), on the Unix socket `path`.

    The guest's memory must be shared. QEMU connects, or waits as the `server`, and does not
    start before the other side is there; `reconnect` is the seconds between attempts after
    it went. `vhostforce` is for guests without MSI-X.
    """

    path: Path = field(converter=Path)
    server: bool = field(default=False, validator=fields.kind(bool), kw_only=True)
    reconnect: int | None = field(
        default=None, validator=fields.optional(fields.positive), kw_only=True
    )
    vhostforce: bool | None = field(
        default=None, validator=fields.optional(fields.kind(bool)), kw_only=True
    )

    multiqueue: ClassVar[bool] = True
    virtio_only: ClassVar[bool] = True
    shares_memory: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        unix_path("path", self.path)

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        chardev = f"{wire.id}-chardev"
        waits = {"server": True, "wait": False} if self.server else {}
        again = {} if self.reconnect is None else {"reconnect": self.reconnect}
        yield Option(
            "chardev",
            {"backend": "socket", "id": chardev, "path": str(self.path), **waits, **again},
            source="backend",
        )
        queues = wire.queues if wire.queues > 1 else None
        yield self.netdev(
            "vhost-user", wire, chardev=chardev, queues=queues, vhostforce=self.vhostforce
        )


@frozen
class VhostVdpa(Backend):
    """A vDPA device of the host, such as ``/dev/vhost-vdpa-0``."""

    vhostdev: Path = field(converter=Path)

    multiqueue: ClassVar[bool] = True
    virtio_only: ClassVar[bool] = True

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        queues = wire.queues if wire.queues > 1 else None
        yield self.netdev("vhost-vdpa", wire, vhostdev=str(self.vhostdev), queues=queues)
