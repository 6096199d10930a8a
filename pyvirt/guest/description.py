"""The default guest as a value: what a user adds to the Linux that pyvirt boots by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen


def _to_files(value: Any) -> Mapping[str, bytes | Path]:
    if not isinstance(value, Mapping):
        raise SpecError("files", "must map paths in the guest to bytes or a Path", value)
    return {name: _contents(name, data) for name, data in value.items()}


# The agent mounts these before it does anything else.
_MOUNTED = frozenset({"dev", "proc", "run", "sys", "tmp"})


def _contents(name: Any, data: Any) -> bytes | Path:
    where = f"files[{name!r}]"
    if not isinstance(name, str) or not _is_absolute(name):
        raise SpecError(where, "must have an absolute path in the guest", name)
    if PurePosixPath(name).parts[1] in _MOUNTED:
        raise SpecError(where, "would be hidden by a file system that is mounted there", name)
    if isinstance(data, Path):
        return data
    if not isinstance(data, bytes | bytearray | memoryview):
        raise SpecError(where, "must be bytes or a Path on the host", data)
    return bytes(data)


def _is_absolute(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() and len(path.parts) > 1 and ".." not in path.parts


def _is_names(instance: Any, field: attrs.Attribute[Any], value: tuple[Any, ...]) -> None:
    for index, name in enumerate(value):
        if not isinstance(name, str) or not name or name.startswith("-") or len(name.split()) != 1:
            raise SpecError(f"{field.name}[{index}]", "must be a name", name)


def _is_script(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, str | Path):
        raise SpecError(field.name, "must be the text of a script or a Path", value)


@frozen(kw_only=True)
class Guest:
    """The default guest: the Linux of the host's own distribution, in memory only.

    It has busybox, pyvirt's agent, drivers for all disks and network cards that QEMU can
    give it, and what is named here:

    `files`: absolute paths in the guest → bytes (executable when they begin as a script or
    a program does), or a Path on the host whose contents and permissions are taken.
    `binaries`: programs, found on the host's PATH or in `packages`, brought with the shared
    libraries they need.
    `packages`: Debian packages whose files are brought, documentation excepted, with the
    libraries that their programs need; downloaded as the user, not installed.
    `modules`: kernel modules loaded at boot, hardware or not, before anything else runs.
    `init`: a script (text, for /bin/sh when it has no ``#!`` line; or a Path) that runs to
    its end before the agent answers: start what shall go on with ``&``.
    `kernel`: a bzImage or vmlinux of the user's, with its modules in
    ``/lib/modules/<release>`` beside or below the host's root; by default an installed
    Debian kernel, or a downloaded one.
    `qga`: bring the QEMU guest agent too; it serves the port ``org.qemu.guest_agent.0``.
    `append`: words added to the kernel's command line.

    A network card whose address the host does not know asks for one by DHCP in the
    background, at the start or plugged later, and the answer replaces what was set by hand:
    ``pyvirt.ip=MAC,ADDRESS/PREFIX,GATEWAY,SERVER`` in `append` gives a card its own at once
    (the last two may be empty), and ``files={"/etc/pyvirt/dhcp": b"#!/bin/sh\\n"}`` leaves
    all others as they are.

    Raises `SpecError` naming the field.
    """

    files: Mapping[str, bytes | Path] = field(factory=dict, converter=_to_files, hash=False)
    binaries: tuple[str, ...] = field(default=(), converter=fields.to_tuple, validator=_is_names)
    packages: tuple[str, ...] = field(default=(), converter=fields.to_tuple, validator=_is_names)
    modules: tuple[str, ...] = field(default=(), converter=fields.to_tuple, validator=_is_names)
    init: str | Path | None = field(default=None, validator=_is_script)
    kernel: Path | None = field(default=None, converter=fields.to_path)
    qga: bool = field(default=False, validator=fields.kind(bool))
    append: str = field(default="", validator=fields.text)
