"""What the QEMU guest agent says of its guest, as flows."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pyvirt.errors import GuestError
from pyvirt.guest.carrier import Filesystem, GuestInfo, Interface, User
from pyvirt.guest.qga_files import whole
from pyvirt.guest.scripts import listens
from pyvirt.qmp.flow import Command, Flow


def listening(port: int, protocol: str) -> Flow[bool]:
    """Whether something listens, from the guest's own table of sockets."""
    for suffix in ("", "6"):
        with suppress(GuestError):  # a guest without IPv6
            table = yield from whole(f"/proc/net/{protocol}{suffix}")
            if listens(table.decode("ascii", "replace"), port, protocol):
                return True
    return False


def info() -> Flow[GuestInfo]:
    """What the guest says of itself; what this agent cannot tell stays empty."""
    system = yield from _optional("guest-get-osinfo", {})
    host = yield from _optional("guest-get-host-name", {})
    now = yield from _optional("guest-get-time", None)
    uptime = None
    with suppress(GuestError, ValueError, IndexError):
        uptime = float((yield from whole("/proc/uptime")).split()[0])
    return GuestInfo(
        hostname=str(host.get("host-name", "")),
        kernel=str(system.get("kernel-release", "")),
        machine=str(system.get("machine", "")),
        os={name: str(system[key]) for key, name in _OS_RELEASE.items() if key in system},
        interfaces=_interfaces((yield from _optional("guest-network-get-interfaces", []))),
        filesystems=_filesystems((yield from _optional("guest-get-fsinfo", []))),
        users=_users((yield from _optional("guest-get-users", []))),
        uptime=uptime,
        time=now / 1e9 if isinstance(now, int) else None,
    )


_OS_RELEASE = {
    "id": "ID",
    "name": "NAME",
    "pretty-name": "PRETTY_NAME",
    "version": "VERSION",
    "version-id": "VERSION_ID",
    "variant": "VARIANT",
    "variant-id": "VARIANT_ID",
}


def _optional(name: str, otherwise: Any) -> Flow[Any]:
    try:
        return (yield Command(name))
    except GuestError:
        return otherwise


def _interfaces(found: list[dict[str, Any]]) -> tuple[Interface, ...]:
    return tuple(
        Interface(
            str(one.get("name", "")),
            str(one.get("hardware-address", "")),
            tuple(
                f"{address.get('ip-address')}/{address.get('prefix')}"
                for address in one.get("ip-addresses", ())
            ),
        )
        for one in found
    )


def _filesystems(found: list[dict[str, Any]]) -> tuple[Filesystem, ...]:
    return tuple(
        Filesystem(
            str(one.get("mountpoint", "")),
            str(one.get("type", "")),
            f"/dev/{one.get('name', '')}",  # its kernel name: this agent tells of disks only
            one.get("total-bytes"),
            one.get("used-bytes"),
        )
        for one in found
    )


def _users(found: list[dict[str, Any]]) -> tuple[User, ...]:
    return tuple(User(str(one.get("user", "")), float(one.get("login-time", 0.0))) for one in found)
