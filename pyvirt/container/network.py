"""Networks of a container: interfaces in a namespace of its own, or the host's."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.nic.mac import to_mac

_NAME = re.compile(r"[^\s/:\0]{1,15}")  # IFNAMSIZ is 16, with the zero


def _is_name(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value in (".", ".."):
        raise SpecError(field.name, "must be an interface's name of 1 to 15 characters", value)


def _is_address(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        raise SpecError(field.name, "must be addresses such as '10.0.3.2/24'", value) from None
    if "/" not in value:
        raise SpecError(field.name, "must say the length of the network ('/24')", value)


def _is_gateway(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value in ("auto", "dev"):
        return
    try:
        ipaddress.ip_address(value)
    except ValueError:
        reason = "must be an address, 'auto' (the bridge's own) or 'dev'"
        raise SpecError(field.name, reason, value) from None


@frozen(kw_only=True)
class Interface:
    """What all interfaces have.

    `name` is its name in the container, by default ``eth0`` and so on. `addresses` are IPv4
    and IPv6, with the length of their network; `gateways` one of each kind at most. `mac`
    is made by the kernel unless given.
    """

    name: str | None = field(default=None, validator=fields.optional(_is_name))
    mac: str | None = field(default=None, converter=to_mac)
    addresses: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(_is_address)
    )
    gateways: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(_is_gateway)
    )
    mtu: int | None = field(default=None, validator=fields.optional(fields.between(68, 65535)))
    up: bool = field(default=True, validator=fields.kind(bool))

    def __attrs_post_init__(self) -> None:
        versions = [6 if ":" in gateway else 4 for gateway in self.gateways]
        if len(versions) != len(set(versions)):
            raise SpecError("gateways", "must be at most one of IPv4 and of IPv6", self.gateways)

    def items(self) -> Iterator[tuple[str, str]]:
        """The keys under ``lxc.net.N.``, with their values."""
        yield from self._own()
        if self.up:
            yield "flags", "up"
        for key, value in (("name", self.name), ("hwaddr", self.mac), ("mtu", self.mtu)):
            if value is not None:
                yield key, str(value)
        for address in self.addresses:
            yield f"ipv{6 if ':' in address else 4}.address", address
        for gateway in self.gateways:
            yield f"ipv{6 if ':' in gateway else 4}.gateway", gateway

    def _own(self) -> Iterator[tuple[str, str]]:
        """What the kind of interface adds, its type first."""
        raise NotImplementedError


@frozen(kw_only=True)
class Veth(Interface):
    """A pair of virtual cards, whose host end joins `bridge` (None: joins nothing).

    `host_name` names the host's end. `vlan` and `tagged_vlans` are the VLANs of its port on
    the bridge, untagged and tagged.
    """

    bridge: str | None = field(default=None, kw_only=False, validator=fields.optional(_is_name))
    host_name: str | None = field(default=None, validator=fields.optional(_is_name))
    vlan: int | None = field(default=None, validator=fields.optional(fields.between(1, 4094)))
    tagged_vlans: tuple[int, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.between(1, 4094))
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.bridge is None and (self.vlan is not None or self.tagged_vlans):
            raise SpecError("vlan", "needs a bridge", self.vlan)
        if self.bridge is None and "auto" in self.gateways:
            raise SpecError("gateways", "can be 'auto' only on a bridge", self.gateways)

    def _own(self) -> Iterator[tuple[str, str]]:
        yield "type", "veth"
        if self.bridge is not None:
            yield "link", self.bridge
        if self.host_name is not None:
            yield "veth.pair", self.host_name
        if self.vlan is not None:
            yield "veth.vlan.id", str(self.vlan)
        for vlan in self.tagged_vlans:
            yield "veth.vlan.tagged.id", str(vlan)


@frozen(kw_only=True)
class _Linked(Interface):
    link: str = field(kw_only=False, validator=_is_name)


@frozen(kw_only=True)
class Macvlan(_Linked):
    """A card with a MAC address of its own on the host's interface `link`."""

    mode: str = field(
        default="private", validator=fields.choice("private", "vepa", "bridge", "passthru")
    )

    def _own(self) -> Iterator[tuple[str, str]]:
        yield from (("type", "macvlan"), ("link", self.link), ("macvlan.mode", self.mode))


@frozen(kw_only=True)
class Ipvlan(_Linked):
    """A card that shares the MAC address of the host's interface `link`."""

    mode: str = field(default="l3", validator=fields.choice("l2", "l3", "l3s"))
    isolation: str = field(
        default="bridge", validator=fields.choice("bridge", "private", "vepa")
    )

    def _own(self) -> Iterator[tuple[str, str]]:
        yield from (("type", "ipvlan"), ("link", self.link))
        yield from (("ipvlan.mode", self.mode), ("ipvlan.isolation", self.isolation))


@frozen(kw_only=True)
class Vlan(_Linked):
    """VLAN `id` of the host's interface `link` (IEEE 802.1Q)."""

    id: int = field(kw_only=False, validator=fields.between(1, 4094))

    def _own(self) -> Iterator[tuple[str, str]]:
        yield from (("type", "vlan"), ("link", self.link), ("vlan.id", str(self.id)))


@frozen(kw_only=True)
class Physical(_Linked):
    """The host's interface `link` itself: the host has it back when the container ends."""

    def _own(self) -> Iterator[tuple[str, str]]:
        yield from (("type", "phys"), ("link", self.link))


@frozen
class HostNetwork:
    """No network of its own: the container sees, and may change, the host's."""
