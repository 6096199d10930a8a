"""From descriptions to tables: what was given, in values that TOML and JSON have."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.files import kinds
from pyvirt.files.read import MARK, key_of
from pyvirt.qemu.option import JsonNull

_AS_TEXT = (UUID, IPv4Address, IPv4Network, IPv6Address, IPv6Network)
NONE = {MARK: "None"}


def table(value: Any, *, tagged: bool = False) -> dict[str, Any]:
    """The fields of a description that were given; `tagged` says first of which class it is."""
    cls: type = type(value)
    hints = kinds.hints(cls)
    made: dict[str, Any] = {"type": cls.__name__} if tagged else {}
    for field, given in fields.given(value):
        size = fields.holds_size(field) and given is not None
        shown = fields.sized(given) if size else plain(given, hints[field.name], field.name)
        made[key_of(field, tagged=tagged)] = shown
    return made


def plain(value: Any, hint: Any, name: str) -> Any:
    """`value` of a field annotated `hint`, as a file has it."""
    match value:
        case None | JsonNull():
            return NONE
        case bool() | int() | float() | str():
            return value
        case bytes():
            return _bytes(value, hint)
        case Path():
            apart = kinds.accepts(hint, str, bytes)
            return {"path": str(value)} if apart else str(value)
        case datetime():
            return value.isoformat()
        case list() | tuple():
            inner = kinds.item(hint)
            return [plain(one, inner, name) for one in value]
        case Mapping():
            _, inner = kinds.entry(hint)
            return {str(key): plain(one, inner, name) for key, one in value.items()}
    if isinstance(value, _AS_TEXT):
        return str(value)
    if attrs.has(type(value)):
        return _description(value, hint, name)
    raise SpecError(name, "cannot be written to a file", value)


def holds_secrets(value: Any) -> bool:
    """Whether something in a description is a secret, which its repr does not show."""
    if isinstance(value, Mapping):
        return any(map(holds_secrets, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds_secrets, value))
    if not attrs.has(type(value)):
        return False
    return any(not field.repr or holds_secrets(one) for field, one in fields.given(value))


def _bytes(value: bytes, hint: Any) -> Any:
    """Text where that loses nothing and cannot be taken for something else."""
    if not kinds.accepts(hint, str):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return {"base64": base64.b64encode(value).decode()}


def _description(value: Any, hint: Any, name: str) -> dict[str, Any]:
    if kinds.only(hint) is type(value):
        return table(value)
    if kinds.classes(hint):
        made = table(value, tagged=True)
        if made["type"] == kinds.USUAL.get(name):
            del made["type"]
        return made
    return {MARK: type(value).__name__, **table(value)}
