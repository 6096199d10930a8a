"""Guests joined by sockets, packet by packet: the older `Socket`, and `Stream` and `Dgram`."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, ClassVar

from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.nic.address import Address, Fd, Inet, Vsock
from pyvirt.nic.backend import Backend, Wire
from pyvirt.qemu.need import GivenFds, Need
from pyvirt.qemu.option import Option

_address = fields.kind(Address)
_text = fields.optional(fields.text)


@frozen(kw_only=True)
class Socket(Backend):
    """A TCP connection to another QEMU, a multicast group of many, or a UDP tunnel.

    Exactly one of `listen`, `connect`, `mcast` and `udp` is ``"host:port"``; `localaddr`
    is this host's end of the latter two.
    """

    listen: str | None = field(default=None, validator=_text)
    connect: str | None = field(default=None, validator=_text)
    mcast: str | None = field(default=None, validator=_text)
    udp: str | None = field(default=None, validator=_text)
    localaddr: str | None = field(default=None, validator=_text)

    KINDS: ClassVar[tuple[str, ...]] = ("listen", "connect", "mcast", "udp")

    def __attrs_post_init__(self) -> None:
        given = [kind for kind in self.KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            words = ", ".join(given) or "none"
            raise SpecError("listen", "or exactly one of connect, mcast, udp is required", words)
        if self.udp is not None and self.localaddr is None:
            raise SpecError("localaddr", "is mandatory with udp", None)
        if self.localaddr is not None and given[0] not in ("mcast", "udp"):
            raise SpecError("localaddr", f"is not valid with {given[0]}", self.localaddr)

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        given = {name: getattr(self, name) for name in (*self.KINDS, "localaddr")}
        yield self.netdev("socket", wire, **given)


@frozen
class Stream(Backend):
    """A stream socket to one peer: QEMU connects to `addr`, or waits there as its `server`.

    Each packet follows its length, four bytes big-endian. A connected socket (`Fd`) becomes
    QEMU's ``socket``, which speaks the same and can be plugged later; one that listens
    already cannot.
    """

    addr: Address = field(validator=_address)
    server: bool = field(default=False, validator=fields.kind(bool), kw_only=True)

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        if isinstance(self.addr, Fd):
            yield from self._open(self.addr, wire)
            return
        yield from self.addr.needs(wire.id)
        yield self._stream(wire)

    def _open(self, addr: Fd, wire: Wire) -> Iterator[Option | Need]:
        """A socket that is open already: connected, or listening."""
        yield GivenFds(wire.id, fds=(addr.fd,), inherited=self.server)
        yield self._stream(wire) if self.server else self.connected(wire)

    def _stream(self, wire: Wire) -> Option:
        return self.netdev("stream", wire, addr=self.addr.qapi(wire.id), server=self.server)


@frozen(kw_only=True)
class Dgram(Backend):
    """Datagrams to one peer or to a multicast group, one packet each.

    From `local` to `remote`, which are of one kind; a group needs no `local`, and an open
    socket as `local` (`Fd`) needs no `remote`.
    """

    local: Address | None = field(default=None, validator=fields.optional(_address))
    remote: Address | None = field(default=None, validator=fields.optional(_address))

    def __attrs_post_init__(self) -> None:
        if self.local is None and not _multicast(self.remote):
            raise SpecError("local", "is required, unless remote is a multicast group", None)
        for name in ("local", "remote"):
            if isinstance(getattr(self, name), Vsock):
                raise SpecError(name, "must not be vsock, which has no datagrams", self)
        if isinstance(self.local, Fd) or _multicast(self.remote):
            return
        if self.remote is None:
            raise SpecError("remote", "is required with an inet or unix local", None)
        if type(self.local) is not type(self.remote):
            raise SpecError("remote", "must be of the same type as local", self.remote)

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        ends: dict[str, Any] = {}
        for name, end in (("local", self.local), ("remote", self.remote)):
            if end is not None:
                yield from end.needs(wire.id)
                ends[name] = end.qapi(wire.id)
        yield self.netdev("dgram", wire, **ends)


def _multicast(address: Address | None) -> bool:
    try:
        return isinstance(address, Inet) and ip_address(address.host).is_multicast
    except ValueError:
        return False
