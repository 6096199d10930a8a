"""Devices of the host that a container may use."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen

_ACCESS = re.compile(r"(?=[rwm])r?w?m?")


@frozen
class HostDevice:
    """The device file `path` of the host, there also in the container.

    `target` is its path there, by default the same. `access` is what may be done with it:
    "r" read, "w" write, "m" make a node of it.
    """

    path: str = field(converter=str)
    target: str | None = field(default=None, validator=fields.optional(fields.text))
    access: str = field(default="rw", kw_only=True)

    @path.validator
    def _absolute(self, field: attrs.Attribute[Any], value: str) -> None:
        if not PurePosixPath(value).is_absolute() or "\0" in value:
            raise SpecError(field.name, "must be an absolute path of the host", value)

    @access.validator
    def _letters(self, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, str) or not _ACCESS.fullmatch(value):
            raise SpecError(field.name, "must be some of 'rwm', in that order", value)

    @property
    def inside(self) -> str:
        """Its path in the container, without the first slash."""
        return (self.target or self.path).lstrip("/")


#: What programs expect of every machine: null, zero, full, random, urandom, tty, console,
#: ptmx and terminals; and making any node, which alone opens nothing.
USUAL = (
    "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
    "c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm",
)  # fmt: skip
