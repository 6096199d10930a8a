"""One neutral option of QEMU: data, not yet a word of a command line nor a QMP command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen


@frozen
class Late:
    """A value that only a start knows: an fd, or a path in a temporary directory.

    `need` names the `Need` that supplies it; `form` is how it is written, with ``{}``
    for the value.
    """

    need: str
    form: str = "{}"


@frozen
class JsonNull:
    """JSON's null, where QEMU tells it from an absent property (``"backing": null``)."""


NULL = JsonNull()


@frozen
class Option:
    """``-kind properties``: a mapping, a bare word, or nothing (``-nodefaults``).

    Values are strings, numbers, booleans, lists and mappings as QAPI has them, `NULL`
    or `Late`; a property that is None is left out. `source` is the field of the description
    that made the option.
    """

    kind: str
    properties: Mapping[str, Any] | str | Late | None = None
    source: str = field(default="", eq=False)

    @property
    def id(self) -> str:
        """The name by which QEMU knows what the option makes: its id or node-name, or ""."""
        if not isinstance(self.properties, Mapping):
            return ""
        return str(self.properties.get("id", self.properties.get("node-name", "")))
