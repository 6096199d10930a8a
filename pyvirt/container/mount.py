"""File systems that a container has besides its root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen


def _absolute(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    path = PurePosixPath(value)
    if not path.is_absolute() or ".." in path.parts or any(c in value for c in "\0\n"):
        raise SpecError(field.name, "must be an absolute path without '..'", value)


def _target() -> Any:
    return field(converter=str, validator=_absolute)


def _options() -> Any:
    return field(
        default=(),
        kw_only=True,
        converter=fields.to_tuple,
        validator=fields.each(fields.text),
    )


class Filesystem:
    """One mount: a line as in fstab(5)."""

    target: str

    def entry(self) -> tuple[str, str, tuple[str, ...]]:
        """What is mounted, its type, and its options."""
        raise NotImplementedError

    def line(self) -> str:
        """The value of ``lxc.mount.entry``, blanks and backslashes written as in fstab(5)."""
        source, kind, options = self.entry()
        inside = self.target.lstrip("/") or "."
        return f"{_escaped(source)} {_escaped(inside)} {kind} {','.join(options)} 0 0"


@frozen
class Bind(Filesystem):
    """A file or directory of the host, at `target` in the container; made there if missing.

    `recursive` takes along what is mounted below it. `options` go to mount(8) as they are.
    """

    source: str = field(converter=str, validator=_absolute)
    target: str = _target()
    readonly: bool = field(default=False, kw_only=True, validator=fields.kind(bool))
    recursive: bool = field(default=False, kw_only=True, validator=fields.kind(bool))
    file: bool = field(default=False, kw_only=True, validator=fields.kind(bool))
    options: tuple[str, ...] = _options()

    def entry(self) -> tuple[str, str, tuple[str, ...]]:
        mode = ("ro",) if self.readonly else ()
        made = "create=file" if self.file else "create=dir"
        kind = "rbind" if self.recursive else "bind"
        return self.source, "none", (kind, *mode, *self.options, made)


@frozen
class Tmpfs(Filesystem):
    """Memory as a file system, of at most `size` bytes, with permissions `mode` at its root."""

    target: str = _target()
    size: int | None = field(
        default=None,
        kw_only=True,
        converter=fields.to_size,
        validator=fields.optional(fields.positive),
    )
    mode: int = field(default=0o1777, kw_only=True, validator=fields.between(0, 0o7777))
    options: tuple[str, ...] = _options()

    def entry(self) -> tuple[str, str, tuple[str, ...]]:
        size = () if self.size is None else (f"size={self.size}",)
        return "tmpfs", "tmpfs", (*size, f"mode={self.mode:o}", *self.options, "create=dir")


@frozen
class Mount(Filesystem):
    """Anything that mount(8) can: a `source` of the file system type `type`."""

    source: str = field(converter=str, validator=fields.text)
    target: str = field(converter=str, validator=_absolute)
    type: str = field(validator=fields.text)
    options: tuple[str, ...] = _options()

    def entry(self) -> tuple[str, str, tuple[str, ...]]:
        return self.source, self.type, self.options or ("defaults",)


_ESCAPES: Mapping[int, str] = str.maketrans({c: f"\\{ord(c):03o}" for c in " \t\\#"})


def _escaped(path: str) -> str:
    return path.translate(_ESCAPES)
