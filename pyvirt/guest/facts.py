"""What a guest says of itself, from the agent's fields to values."""

from __future__ import annotations

from collections.abc import Mapping

from pyvirt.guest.carrier import Filesystem, GuestInfo, Interface, User
from pyvirt.guest.protocol import Fields, Tag


def guest_info(found: Fields) -> GuestInfo:
    """The facts in `found`."""
    return GuestInfo(
        hostname=found.text(Tag.HOSTNAME),
        kernel=found.text(Tag.KERNEL),
        machine=found.text(Tag.MACHINE),
        os=os_release(found.text(Tag.OS_RELEASE)),
        interfaces=tuple(_interface(Fields(one)) for one in found.all(Tag.INTERFACE)),
        filesystems=tuple(_filesystem(Fields(one)) for one in found.all(Tag.FILESYSTEM)),
        users=tuple(_login(Fields(one)) for one in found.all(Tag.LOGIN)),
        uptime=_seconds(found.number(Tag.UPTIME)),
        time=_seconds(found.number(Tag.TIME)),
    )


def os_release(text: str) -> Mapping[str, str]:
    """The variables of an os-release file (os-release(5): shell assignments, one a line)."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): _unquoted(value) for key, _, value in pairs if not key.startswith("#")}


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    parts = iter(value)
    return "".join(next(parts, "") if char == "\\" else char for char in parts)


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def _interface(found: Fields) -> Interface:
    return Interface(found.text(Tag.NAME), found.text(Tag.MAC), found.texts(Tag.ADDRESS))


def _filesystem(found: Fields) -> Filesystem:
    return Filesystem(
        found.text(Tag.NAME),
        found.text(Tag.TYPE),
        found.text(Tag.DEVICE),
        found.number(Tag.TOTAL),
        found.number(Tag.USED),
    )


def _login(found: Fields) -> User:
    return User(found.text(Tag.NAME), _seconds(found.number(Tag.TIME)) or 0.0)
