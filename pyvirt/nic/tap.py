"""Taps: network interfaces of the host whose other end is a guest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.nic.backend import Backend, Wire
from pyvirt.qemu.need import GivenFds, Need, TapFds, VhostFds
from pyvirt.qemu.option import Late, Option


def interface(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """The field is a name that Linux gives to interfaces (dev_valid_name)."""
    fields.text(instance, field, value)
    bad = value in (".", "..") or any(c in "/:%" or c.isspace() for c in value)
    if bad or not 0 < len(value.encode("utf-8", "surrogateescape")) <= 15:
        raise SpecError(field.name, "must be 1 to 15 bytes without '/', ':', '%' or space", value)


@frozen(kw_only=True)
class Tap(Backend):
    """A tap interface of the host.

    `ifname` is the user's own, which stays; or, when there is none of that name, it is made
    for the VM and ends with it. Without `ifname` one is made and the kernel names it. It is
    attached to `bridge`, set up, and given `mtu`. `vhost` lets the kernel move the packets
    of a virtio-net card: by default where ``/dev/vhost-net`` can be opened.
    `fds` are open queues of a tap, descriptors of this process.

    With `script` or `downscript` QEMU opens the tap itself and runs them; "no" runs none.
    `sndbuf` bounds the bytes in flight; `poll_us` is how many microseconds vhost polls.
    """

    ifname: str | None = field(default=None, validator=fields.optional(interface))
    bridge: str | None = field(default=None, validator=fields.optional(interface))
    mtu: int | None = field(default=None, validator=fields.optional(fields.between(68, 65521)))
    vhost: bool | None = field(default=None, validator=fields.optional(fields.kind(bool)))
    vnet_hdr: bool = field(default=True, validator=fields.kind(bool))
    sndbuf: int | None = field(default=None, converter=fields.to_size)
    poll_us: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 2**32 - 1))
    )
    script: str | None = field(default=None, converter=attrs.converters.optional(str))
    downscript: str | None = field(default=None, converter=attrs.converters.optional(str))
    fds: tuple[int, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.between(0, 2**31 - 1))
    )

    multiqueue: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        if self.fds:
            self._refuse("is invalid with fds", "ifname", "bridge", "mtu", "script", "downscript")
        if self.by_qemu:
            self._refuse("is not set by QEMU, which runs the script", "bridge", "mtu")
        if self.poll_us is not None and self.vhost is False:
            raise SpecError("poll_us", "needs vhost, which is off", self.poll_us)

    def _refuse(self, reason: str, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise SpecError(name, reason, getattr(self, name))

    @property
    def by_qemu(self) -> bool:
        """Whether QEMU opens the tap and runs scripts."""
        return self.script is not None or self.downscript is not None

    @property
    def unlimited(self) -> str | None:
        if self.fds or self.by_qemu:
            return "needs a Tap that pyvirt opens: no fds, no script"
        return None

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        if self.by_qemu:
            yield self._opened_by_qemu(wire)
            return
        yield self._need(wire)
        vhostfds = None
        if wire.vhost and self.vhost is not False:
            need = VhostFds(f"{wire.id}-vhost", queues=wire.queues, optional=self.vhost is None)
            vhostfds = Late(need.name)
            yield need
        yield self.netdev("tap", wire, fds=Late(wire.id), vhostfds=vhostfds, **self._common())

    def _need(self, wire: Wire) -> Need:
        if self.fds:
            return GivenFds(wire.id, fds=self.fds)
        rate = wire.rate
        return TapFds(
            wire.id,
            ifname=self.ifname,
            bridge=self.bridge,
            queues=wire.queues,
            vnet_header=self.vnet_hdr,
            mtu=self.mtu or wire.mtu,
            **({} if rate is None else attrs.asdict(rate)),
        )

    def _opened_by_qemu(self, wire: Wire) -> Option:
        """QEMU opens the tap; it opens ``/dev/vhost-net`` only when told to, or it aborts."""
        return self.netdev(
            "tap",
            wire,
            ifname=self.ifname,
            script=self.script or "no",
            downscript=self.downscript or "no",
            queues=wire.queues if wire.queues > 1 else None,
            **({} if self.vnet_hdr else {"vnet_hdr": False}),
            **({"vhost": True} if self.vhost and wire.vhost else {}),
            **self._common(),
        )

    def _common(self) -> dict[str, Any]:
        return {"sndbuf": self.sndbuf, "poll-us": self.poll_us}


@frozen(kw_only=True)
class Bridge(Backend):
    """A tap that QEMU's setuid helper attaches to bridge `br`, so that no root is needed.

    The host's administrator allows it in ``/etc/qemu/bridge.conf`` (``allow br0``).
    """

    br: str = field(default="br0", validator=interface)
    helper: Path | None = field(default=None, converter=fields.to_path)

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        helper = None if self.helper is None else str(self.helper)
        yield self.netdev("bridge", wire, br=self.br, helper=helper)
