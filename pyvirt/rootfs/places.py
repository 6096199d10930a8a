"""Root file systems that are there already, and are used where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.rootfs.process import Process
from pyvirt.rootfs.rootfs import RootFS


def _to_base(value: Any) -> Any:
    return Directory(value) if isinstance(value, str | Path) else value


def _is_base(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, RootFS) or isinstance(value, LoopImage | Overlay | Made):
        reason = "must be a directory, or a root file system that is made as one"
        raise SpecError(field.name, reason, value)


@frozen
class Directory(RootFS):
    """A directory of the host.

    The container works in it and changes it, unless `copy` gives it one of its own.
    """

    path: Path = field(converter=Path)
    copy: bool = field(default=False, kw_only=True, validator=fields.kind(bool))


@frozen
class LoopImage(RootFS):
    """A file with a file system, such as squashfs or ext4, mounted through a loop device.

    One that can be written to is changed by the container, unless it is `readonly`.
    """

    path: Path = field(converter=Path)
    readonly: bool = field(default=False, kw_only=True, validator=fields.kind(bool))


@frozen
class Overlay(RootFS):
    """What the container changes, over a `base` that is only read and may serve many.

    The base is a directory that nobody changes meanwhile, or a root file system: that is
    made once, kept in the cache, and shared by all containers over it.
    """

    base: RootFS = field(converter=_to_base, validator=_is_base)


@frozen
class Made(RootFS):
    """One that was made before, in the words of liblxc: what a kept container starts with."""

    source: str
    options: tuple[str, ...] = ()
    process: Process | None = None
