"""User-mode networking (libslirp): needs no rights, and hides the guest behind the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import present
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.nic.backend import Backend, Wire
from pyvirt.nic.forward import Forward, GuestForward
from pyvirt.nic.internet import to_ipv4, to_ipv6, to_network4, to_network6
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option

_flag = fields.optional(fields.kind(bool))
_text = fields.optional(fields.text)


def _bytes(limit: int, why: str) -> fields.Validator:
    """The field is text of at most `limit` bytes, because of `why`."""

    def check(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        fields.text(instance, field, value)
        if not 0 < len(value.encode("utf-8", "surrogateescape")) <= limit:
            raise SpecError(field.name, f"must be 1 to {limit} bytes: {why}", value)

    return fields.optional(check)


@frozen(kw_only=True)
class User(Backend):
    """A network of the guest's own behind QEMU: DHCP, DNS, TFTP, and outgoing connections.

    `net` is the guest's network (10.0.2.0/24), in which `host` (x.x.2.2) is this host,
    `dns` (x.x.2.3) its name server and `dhcpstart` (x.x.2.15) the first address for
    guests. `restrict` keeps the guest from the host and from the outside; what is
    forwarded stays reachable. `tftp` is a directory from which a guest may boot
    `bootfile`; `smb` one that it may mount. `forwards` lead from the host to the guest,
    `guest_forwards` from the guest to a program or a character device of the host.
    Raises `SpecError` naming the field, with QEMU's reason.
    """

    net: IPv4Network | None = field(default=None, converter=to_network4)
    host: IPv4Address | None = field(default=None, converter=to_ipv4)
    dns: IPv4Address | None = field(default=None, converter=to_ipv4)
    dhcpstart: IPv4Address | None = field(default=None, converter=to_ipv4)
    ipv4: bool | None = field(default=None, validator=_flag)
    ipv6: bool | None = field(default=None, validator=_flag)
    ipv6_net: IPv6Network | None = field(default=None, converter=to_network6)
    ipv6_host: IPv6Address | None = field(default=None, converter=to_ipv6)
    ipv6_dns: IPv6Address | None = field(default=None, converter=to_ipv6)
    restrict: bool | None = field(default=None, validator=_flag)
    # libslirp keeps 33 bytes and cuts longer names in silence (client_hostname).
    hostname: str | None = field(default=None, validator=_bytes(32, "libslirp cuts the rest"))
    domainname: str | None = field(default=None, validator=_bytes(255, "QEMU takes no more"))
    dnssearch: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.text)
    )
    tftp: Path | None = field(default=None, converter=fields.to_path)
    # The field of a BOOTP reply has 128 bytes (RFC 951).
    bootfile: str | None = field(default=None, validator=_bytes(127, "BOOTP carries no more"))
    tftp_server_name: str | None = field(
        default=None, validator=_bytes(255, "QEMU takes no more")
    )
    smb: Path | None = field(default=None, converter=fields.to_path)
    smbserver: IPv4Address | None = field(default=None, converter=to_ipv4)
    forwards: tuple[Forward, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.kind(Forward))
    )
    guest_forwards: tuple[GuestForward, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.kind(GuestForward))
    )

    def __attrs_post_init__(self) -> None:
        if self.ipv4 is False and self.ipv6 is False:
            raise SpecError("ipv6", "must be on when ipv4 is off", self.ipv6)
        _refuse_when_off(self, "ipv4", ("net", "host", "dns", "dhcpstart"))
        _refuse_when_off(self, "ipv6", ("ipv6_net", "ipv6_host", "ipv6_dns"))
        if self.smbserver is not None and self.smb is None:
            raise SpecError("smbserver", "needs smb, the directory to serve", str(self.smbserver))
        _check_ipv4(self)
        _check_ipv6(self)

    @property
    def network(self) -> IPv4Network:
        """The guest's network."""
        return self.net or IPv4Network("10.0.2.0/24")

    @property
    def guest(self) -> IPv4Address:
        """The address that DHCP gives to the first guest; forwards lead to it by default."""
        return self.dhcpstart or _default(self.network, 0x020F)

    @property
    def gateway(self) -> IPv4Address:
        """This host, as the guest's network sees it."""
        return self.host or _default(self.network, 0x0202)

    @property
    def server(self) -> IPv4Address:
        """The name server of the guest's network."""
        return self.dns or _default(self.network, 0x0203)

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        for number, forward in enumerate(self.guest_forwards):
            yield from forward.options(_name(wire, number))
        yield self.netdev("user", wire, **_plain(self), **_lists(self, wire))


def _plain(user: User) -> dict[str, Any]:
    """The fields that are one value; a network for IPv6 is two words of QEMU's JSON."""
    net = user.ipv6_net
    return {
        "net": _text_of(user.net),
        "host": _text_of(user.host),
        "dns": _text_of(user.dns),
        "dhcpstart": _text_of(user.dhcpstart),
        "ipv4": user.ipv4,
        "ipv6": user.ipv6,
        "ipv6-prefix": None if net is None else str(net.network_address),
        "ipv6-prefixlen": None if net is None else net.prefixlen,
        "ipv6-host": _text_of(user.ipv6_host),
        "ipv6-dns": _text_of(user.ipv6_dns),
        "restrict": user.restrict,
        "hostname": user.hostname,
        "domainname": user.domainname,
        "tftp": _text_of(user.tftp),
        "bootfile": user.bootfile,
        "tftp-server-name": user.tftp_server_name,
        "smb": _text_of(user.smb),
        "smbserver": _text_of(user.smbserver),
    }


def _lists(user: User, wire: Wire) -> Mapping[str, Any]:
    lists = {
        "dnssearch": user.dnssearch,
        "hostfwd": [forward.rule for forward in user.forwards],
        "guestfwd": [
            forward.rule(_name(wire, number)) for number, forward in enumerate(user.guest_forwards)
        ],
    }
    # QAPI wraps each string of these lists in an object.
    return present({key: [{"str": item} for item in items] or None for key, items in lists.items()})


def _name(wire: Wire, number: int) -> str:
    return f"{wire.id}-guestfwd{number}"


def _text_of(value: object) -> str | None:
    return None if value is None else str(value)


def _refuse_when_off(user: User, switch: str, names: tuple[str, ...]) -> None:
    if getattr(user, switch) is not False:
        return
    for name in names:
        if getattr(user, name) is not None:
            raise SpecError(name, f"needs {switch}, which is off", str(getattr(user, name)))


def _default(net: IPv4Network, host: int) -> IPv4Address:
    """How QEMU numbers the hosts of a network: the end of `host` that fits its mask."""
    return IPv4Address(int(net.network_address) | host & int(net.hostmask))


def _check_ipv4(user: User) -> None:
    """The rules of QEMU's net_slirp_init()."""
    net = user.network
    host, dns = user.gateway, user.server
    _inside("host", user.host, net)
    _inside("dhcpstart", user.dhcpstart, net)
    if user.restrict:
        _inside("dns", user.dns, net)
    if dns == host:
        raise SpecError("dns", "must be different from host", str(dns))
    if user.guest in (host, dns):
        raise SpecError("dhcpstart", "must be different from host and DNS", str(user.guest))
    for forward in user.guest_forwards:
        _inside("guest_forwards", forward.address, net)
        if forward.address in (host, dns):
            raise SpecError("guest_forwards", "conflicts with host or DNS", str(forward.address))


def _check_ipv6(user: User) -> None:
    net = user.ipv6_net or IPv6Network("fec0::/64")
    _inside("ipv6_host", user.ipv6_host, net)
    if user.restrict:
        _inside("ipv6_dns", user.ipv6_dns, net)


def _inside(name: str, address: Any, net: IPv4Network | IPv6Network) -> None:
    if address is not None and address not in net:
        raise SpecError(name, f"must belong to the network {net}", str(address))
