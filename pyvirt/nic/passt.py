"""passt: user-mode networking in a process of its own, with the host's own addresses."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.nic.backend import Backend, Wire
from pyvirt.nic.forward import Forward
from pyvirt.nic.mac import to_mac
from pyvirt.nic.tap import interface
from pyvirt.qemu.need import Need, Peer
from pyvirt.qemu.option import Late, Option


def _addresses(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    for item in value:
        try:
            ip_address(item)
        except ValueError:
            raise SpecError(field.name, "must be IP addresses", item) from None


def _list() -> Any:
    return field(default=(), converter=fields.to_tuple, validator=_addresses)


@frozen(kw_only=True)
class Passt(Backend):
    """The program passt, joined to QEMU by a socket and ended with it.

    Without more it gives the guest the address, gateway and name servers of the host's
    `interface`. `address`, `gateway` and `dns` take one for IPv4 and one for IPv6;
    `gateway_mac` is the address of its own side. `forwards` name their host port: passt
    takes none at random. `arguments` go to passt as they are, last.
    """

    interface: str | None = field(default=None, validator=fields.optional(interface))
    address: tuple[str, ...] = _list()
    gateway: tuple[str, ...] = _list()
    dns: tuple[str, ...] = _list()
    gateway_mac: str | None = field(default=None, converter=to_mac)
    mtu: int | None = field(default=None, validator=fields.optional(fields.between(0, 65520)))
    forwards: tuple[Forward, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.kind(Forward))
    )
    program: str = field(default="passt", converter=str, validator=fields.text)
    arguments: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.text)
    )

    def __attrs_post_init__(self) -> None:
        for forward in self.forwards:
            if not forward.host:
                raise SpecError("forwards", "must name a host port for passt", forward.rule)
            if forward.guest_address is not None:
                raise SpecError("forwards", "must not name a guest address", forward.rule)

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        yield Peer(
            wire.id,
            program=self.program,
            arguments=tuple(self._arguments(wire)),
            hint="install the package passt",
        )
        # QEMU has a netdev of this name since 10.1; a socket does the same in all.
        yield self.connected(wire)

    def _arguments(self, wire: Wire) -> Iterator[str | Late]:
        yield from ("--foreground", "--quiet", "--fd")
        yield Late("fd")
        mtu = self.mtu if self.mtu is not None else wire.mtu
        if self.interface is not None:
            yield from ("--interface", self.interface)
        if self.gateway_mac is not None:
            yield from ("--mac-addr", self.gateway_mac)
        if mtu is not None:
            yield from ("--mtu", str(mtu))
        for name in ("address", "gateway", "dns"):
            for item in getattr(self, name):
                yield from (f"--{name}", str(item))
        for forward in self.forwards:
            yield from (f"--{forward.proto}-ports", _spec(forward))
        yield from self.arguments


def _spec(forward: Forward) -> str:
    return f"{forward.host_address}/{forward.host}:{forward.guest}"
