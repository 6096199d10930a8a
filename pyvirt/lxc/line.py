"""Lines of an LXC configuration (lxc.container.conf(5)), each with the field that made it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from attrs import field

from pyvirt.errors import SpecError
from pyvirt.fields import frozen


def _one_line(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or any(c in value for c in "\0\n\r"):
        source = getattr(instance, "source", "") or field.name
        raise SpecError(source, "must be text of one line", value)


@frozen
class Line:
    """``key = value``, made by the field `source` of a description."""

    key: str = field(validator=_one_line)
    value: str = field(validator=_one_line)
    source: str = field(default="", kw_only=True)

    def __str__(self) -> str:
        return f"{self.key} = {self.value}".rstrip()


def text(lines: Iterable[Line]) -> str:
    """The configuration file."""
    return "".join(f"{line}\n" for line in lines)
