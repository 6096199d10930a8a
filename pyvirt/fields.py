"""What descriptions are made of: `frozen`, and converters and validators of fields.

Each fault is a `SpecError` naming the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import attrs

from pyvirt.errors import SpecError

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtpe]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


if TYPE_CHECKING:
    from attrs import frozen as frozen
else:

    def frozen(cls: type | None = None, **options: Any) -> Any:
        """`attrs.frozen`, with a repr of only what was given, of the fifty fields there may be."""
        if cls is None:
            return lambda cls: frozen(cls, **options)
        if "__repr__" not in vars(cls):
            cls.__repr__ = call
        return attrs.frozen(cls, **options)


def given(self: Any) -> Iterator[tuple[attrs.Attribute[Any], Any]]:
    """The fields of a description that differ from their defaults, with their values."""
    for field in attrs.fields(type(self)):
        value = getattr(self, field.name)
        if field.init and (field.default is attrs.NOTHING or value != default(self, field)):
            yield field, value


def call(self: Any) -> str:
    """The call that makes `self`: evaluated, it gives an equal value (secrets excepted)."""
    return f"{type(self).__name__}({', '.join(_arguments(self))})"


def _arguments(self: Any) -> Iterator[str]:
    """First those whose names would tell nothing new: what must be given, and the first."""
    shown = {
        field.alias: repr(sized(value)) if holds_size(field) else written(value)
        for field, value in given(self)
        if field.repr
    }
    order = [field for field in attrs.fields(type(self)) if field.init and not field.kw_only]
    for place, field in enumerate(order):
        if field.alias not in shown or (place and field.default is not attrs.NOTHING):
            break
        yield shown.pop(field.alias)
    for alias, value in shown.items():
        yield f"{alias}={value}"


def default(self: Any, field: attrs.Attribute[Any]) -> Any:
    """What `field` of `self` is when it is not given; `attrs.NOTHING` when it must be."""
    made: Any = field.default
    if isinstance(made, attrs.Factory):  # type: ignore[arg-type]
        made = made.factory(self) if made.takes_self else made.factory()
    how: Any = field.converter
    if how is None or made is attrs.NOTHING:
        return made
    if not hasattr(how, "takes_self"):
        return how(made)
    more = [*[self] * how.takes_self, *[field] * how.takes_field]
    return how.converter(made, *more)


def written(value: Any) -> str:
    """`value` as a program would write it: paths whatever the system, mappings as literals."""
    if isinstance(value, PurePath):
        return f"Path({str(value)!r})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k!r}: {written(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))}{',' * (len(value) == 1)})"
    return repr(value)


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


def holds_size(field: attrs.Attribute[Any]) -> bool:
    """Whether the field is a number of bytes."""
    how: Any = field.converter
    return how is to_size


def sized(value: int) -> int | str:
    """`value` bytes as a person writes them, where that loses nothing: "512M", 1000."""
    for unit, shift in reversed(_UNITS.items()):
        if shift and value > 0 and value % (1 << shift) == 0:
            return f"{value >> shift}{unit.upper()}"
    return value


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

    def to_optional_tuple(value: Iterable[Any] | None) -> Any:
        """Converter of a field that holds several values, or None."""

else:
    to_size = attrs.Converter(_convert_size, takes_field=True)
    to_tuple = attrs.Converter(_convert_tuple, takes_field=True)
    to_optional_tuple = attrs.Converter(
        lambda value, field: None if value is None else _convert_tuple(value, field),
        takes_field=True,
    )


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
