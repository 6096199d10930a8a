"""Ports of the host that lead into a guest, and addresses of a guest that lead out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.nic.internet import to_ipv4
from pyvirt.qemu.option import Option


@frozen
class Forward:
    """Connections to port `host` of this host go to port `guest` of the guest.

    Port 0 takes a free one. `host_address` is where the host listens: by default only for
    itself; "0.0.0.0" for everyone. `guest_address` defaults to what DHCP gives first.
    """

    host: int = field(validator=fields.between(0, 65535))
    guest: int = field(validator=fields.between(1, 65535))
    proto: str = field(default="tcp", validator=fields.choice("tcp", "udp"))
    host_address: IPv4Address = field(
        default=IPv4Address("127.0.0.1"), converter=to_ipv4, kw_only=True
    )
    guest_address: IPv4Address | None = field(default=None, converter=to_ipv4, kw_only=True)

    @property
    def listens(self) -> str:
        """The host's end in QEMU's words, which is also how a forward is removed."""
        return f"{self.proto}:{self.host_address}:{self.host}"

    @property
    def rule(self) -> str:
        """The forward in QEMU's words (``hostfwd=``)."""
        return f"{self.listens}-{self.guest_address or ''}:{self.guest}"


@frozen(kw_only=True)
class GuestForward:
    """TCP connections of the guest to `address` and `port` go to the host.

    Either each runs `command` (no shell; its standard input and output are the
    connection), or all share the character device `chardev`, in the words of
    ``-chardev`` (``{"backend": "socket", "path": "/run/x"}``).
    """

    address: IPv4Address = field(converter=to_ipv4)
    port: int = field(validator=fields.between(1, 65535))
    command: str | None = field(default=None, validator=fields.optional(fields.text))
    chardev: Mapping[str, Any] | None = field(
        default=None, validator=fields.optional(fields.kind(Mapping))
    )

    def __attrs_post_init__(self) -> None:
        if (self.command is None) == (self.chardev is None):
            raise SpecError("command", "or chardev must be given, and not both", self.command)
        if self.chardev is not None and "backend" not in self.chardev:
            raise SpecError("chardev", "must name its backend", dict(self.chardev))

    def options(self, name: str) -> Iterator[Option]:
        """The character device, named `name`, if there is one."""
        if self.chardev is not None:
            yield Option("chardev", {**self.chardev, "id": name}, source="backend.guest_forwards")

    def rule(self, name: str) -> str:
        """The forward in QEMU's words (``guestfwd=``)."""
        target = f"cmd:{self.command}" if self.chardev is None else f"chardev:{name}"
        return f"tcp:{self.address}:{self.port}-{target}"
