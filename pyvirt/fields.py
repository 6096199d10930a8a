"""Converters and validators for descriptions: each fault is a `SpecError` naming the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from pyvirt.errors import SpecError

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtpe]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


def size(value: int | str, field: str) -> int:
    """`value` in bytes: a number, or text with QEMU's binary suffixes ("512M", "1.5G").

    Raises `SpecError` naming `field`.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise SpecError(field, "must be bytes or text such as '512M'", value)
    number, unit = match.groups()
    bytes_ = float(number) * (1 << _UNITS[unit.lower()]) if "." in number else 0
    return int(bytes_) if bytes_ else int(number.split(".")[0]) << _UNITS[unit.lower()]


def _convert_size(value: Any, field: attrs.Attribute[Any]) -> int | None:
    return None if value is None else size(value, field.name)


def _convert_tuple(value: Any, field: attrs.Attribute[Any]) -> tuple[Any, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise SpecError(field.name, "must be a list", value)
    return tuple(value)


if TYPE_CHECKING:  # mypy knows converters only as plain functions.

    def to_size(value: int | str | None) -> Any:
        """Converter of a field that holds bytes; ``None`` stays ``None``."""

    def to_tuple(value: Iterable[Any]) -> Any:
        """Converter of a field that holds several values."""

else:
    to_size = attrs.Converter(_convert_size, takes_field=True)
    to_tuple = attrs.Converter(_convert_tuple, takes_field=True)


def to_path(value: Any) -> Path | None:
    """Converter of an optional path."""
    return None if value is None else Path(value)


def positive(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """The field is a number above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise SpecError(field.name, "must be positive", value)


def between(low: int, high: int) -> Validator:
    """The field is an integer from `low` to `high`, both included."""

    def check(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise SpecError(field.name, f"must be from {low} to {high}", value)

    return check


def choice(*allowed: Any) -> Validator:
    """The field is one of `allowed`."""

    def check(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value not in allowed:
            words = ", ".join(str(word) for word in allowed)
            raise SpecError(field.name, f"must be one of {words}", value)

    return check


def kind(*types: type) -> Validator:
    """The field is an instance of one of `types`."""

    def check(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, types):
            raise SpecError(field.name, f"must be {' or '.join(t.__name__ for t in types)}", value)

    return check


def each(validator: Validator) -> Validator:
    """Every item of the field passes `validator`."""

    def check(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        for item in value:
            validator(instance, field, item)

    return check


def text(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """The field is a string that a command line can carry (no NUL)."""
    if not isinstance(value, str) or "\0" in value:
        raise SpecError(field.name, "must be text without NUL", value)


def name(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """The field is an identifier as QEMU accepts it for ids: a letter, then [A-Za-z0-9_.-]."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise SpecError(field.name, "must start with a letter and hold only [A-Za-z0-9_.-]", value)


optional = attrs.validators.optional
