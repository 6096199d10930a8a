"""Addresses of sockets in QEMU's words (QAPI's ``SocketAddress``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import present, unix_path
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import GivenFds, Need
from pyvirt.qemu.option import Late

_flag = fields.optional(fields.kind(bool))


@frozen
class Address:
    """Where a socket is bound or connected."""

    def needs(self, name: str) -> Iterator[Need]:
        """What a start acquires for it, as `name`."""
        return iter(())

    def qapi(self, name: str) -> dict[str, Any]:
        """The address for a netdev."""
        raise NotImplementedError


@frozen
class Inet(Address):
    """A host's name or address and a port, over TCP or UDP."""

    host: str = field(validator=fields.text)
    port: int = field(validator=fields.between(0, 65535))
    to: int | None = field(
        default=None, validator=fields.optional(fields.between(1, 65535)), kw_only=True
    )
    ipv4: bool | None = field(default=None, validator=_flag, kw_only=True)
    ipv6: bool | None = field(default=None, validator=_flag, kw_only=True)
    keep_alive: bool | None = field(default=None, validator=_flag, kw_only=True)
    mptcp: bool | None = field(default=None, validator=_flag, kw_only=True)

    def qapi(self, name: str) -> dict[str, Any]:
        extra = {"to": self.to, "ipv4": self.ipv4, "ipv6": self.ipv6}
        more = {"keep-alive": self.keep_alive, "mptcp": self.mptcp}
        base = {"type": "inet", "host": self.host, "port": str(self.port)}
        return {**base, **present({**extra, **more})}


@frozen
class Unix(Address):
    """A path, or a name in Linux's abstract namespace."""

    path: str = field(converter=str, validator=fields.text)
    abstract: bool | None = field(default=None, validator=_flag, kw_only=True)

    def __attrs_post_init__(self) -> None:
        unix_path("path", self.path)

    def qapi(self, name: str) -> dict[str, Any]:
        return present({"type": "unix", "path": self.path, "abstract": self.abstract})


@frozen
class Vsock(Address):
    """A virtio-vsock or VMCI address: context id and port."""

    cid: int = field(validator=fields.between(0, 2**32 - 1))
    port: int = field(validator=fields.between(0, 2**32 - 1))

    def qapi(self, name: str) -> dict[str, Any]:
        return {"type": "vsock", "cid": str(self.cid), "port": str(self.port)}


def _fileno(value: Any) -> int:
    """The descriptor of an open file or socket."""
    number = value.fileno() if hasattr(value, "fileno") else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise SpecError("fd", "must be an open descriptor", value)
    return number


@frozen
class Fd(Address):
    """An open socket of this process, such as one end of a ``socketpair()``.

    QEMU gets a copy of it; this process closes its own.
    """

    fd: int = field(converter=_fileno)

    def needs(self, name: str) -> Iterator[Need]:
        yield GivenFds(name, fds=(self.fd,))

    def qapi(self, name: str) -> dict[str, Any]:
        return {"type": "fd", "str": Late(name)}
