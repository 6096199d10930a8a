"""From tables to descriptions. Each fault is a `SpecError` that says where in the file."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from pyvirt.errors import SpecError
from pyvirt.files import kinds
from pyvirt.qmp.schema import suggestion

_DATE = re.compile(r"\d{4}-\d\d-\d\d")

_NONE = type(None)

#: The key that names a class where QEMU's own words are free to be anything.
MARK = "pyvirt"


def build(cls: Any, table: Mapping[str, Any], at: str, *, tagged: bool = False) -> Any:
    """The description of class `cls` in `table`, which stands at `at` in the file."""
    known = {key_of(field, tagged=tagged): field for field in attrs.fields(cls) if field.init}
    given: dict[str, Any] = {}
    for key, value in table.items():
        if tagged and key == "type":
            continue
        field = known.get(key)
        if field is None:
            raise _unknown(_inside(at, key), f"is no field of {cls.__name__}", key, known, value)
        given[field.alias] = convert(value, kinds.hints(cls)[field.name], _inside(at, key))
    for key, field in known.items():
        if field.default is attrs.NOTHING and field.alias not in given:
            raise SpecError(_inside(at, key), f"must be given for {cls.__name__}", None)
    return _called(cls, given, at)


def convert(value: Any, hint: Any, at: str) -> Any:
    """`value` as a field annotated `hint` takes it; what does not fit is left to the field."""
    if isinstance(value, Mapping):
        return _table(value, hint, at)
    if isinstance(value, list):
        inner = kinds.item(hint)
        return [convert(one, inner, f"{at}[{number}]") for number, one in enumerate(value)]
    return _text(value, hint) if isinstance(value, str) else value


def _table(value: Mapping[str, Any], hint: Any, at: str) -> Any:
    if value.get(MARK) == "None" or (value.get("type") == "None" and kinds.accepts(hint, _NONE)):
        return None
    if len(value) == 1:
        if "path" in value and kinds.accepts(hint, Path) and kinds.accepts(hint, str, bytes):
            return Path(_string(value["path"], f"{at}.path"))
        if "base64" in value and kinds.accepts(hint, bytes):
            return _bytes(value["base64"], f"{at}.base64")
    cls = kinds.only(hint)
    if cls is not None:
        return build(cls, value, at)
    if kinds.classes(hint):
        return build(_chosen(value, hint, at), value, at, tagged=True)
    return _mapping(value, hint, at)


def _chosen(value: Mapping[str, Any], hint: Any, at: str) -> Any:
    """The class that a table names, or that is usual where it stands."""
    name = value.get("type", kinds.USUAL.get(at.partition("[")[0]))
    if name is None:
        reason = f"must be one of {', '.join(kinds.names(hint))}"
        raise SpecError(f"{at}.type", reason, None)
    cls = kinds.named(name, hint) if isinstance(name, str) else None
    if cls is None:
        raise _unknown(f"{at}.type", "is unknown here", name, kinds.names(hint), name)
    return cls


def _mapping(value: Mapping[str, Any], hint: Any, at: str) -> Any:
    mark = value.get(MARK)
    if isinstance(mark, str):
        cls = kinds.anywhere(mark)
        if cls is None:
            raise SpecError(f"{at}.{MARK}", "must be the name of a class", mark)
        return build(cls, {key: one for key, one in value.items() if key != MARK}, at)
    keys, values = kinds.entry(hint)
    return {
        _mapping_key(key, keys, at): convert(one, values, f"{at}[{key!r}]")
        for key, one in value.items()
    }


def _mapping_key(key: str, kind: Any, at: str) -> Any:
    if kind is not int:
        return key
    try:
        return int(key)
    except ValueError:
        raise SpecError(at, "must have numbers as keys", key) from None


def _text(value: str, hint: Any) -> Any:
    if kinds.accepts(hint, datetime) and _DATE.match(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    if kinds.accepts(hint, str) or hint is Any:
        return value
    if kinds.accepts(hint, bytes):
        return value.encode("utf-8", "surrogateescape")
    return Path(value) if kinds.accepts(hint, Path) else value


def _string(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise SpecError(at, "must be text", value)
    return value


def _bytes(value: Any, at: str) -> bytes:
    try:
        return base64.b64decode(_string(value, at), validate=True)
    except (binascii.Error, ValueError):
        raise SpecError(at, "must be base64", value) from None


def _called(cls: Any, given: Mapping[str, Any], at: str) -> Any:
    """The value; its own faults are told with the place of the table in front."""
    try:
        return cls(**given)
    except SpecError as error:
        raise (error.inside(at) if at else error) from None
    except (TypeError, ValueError, AttributeError) as error:
        # A field without a check of its own met a value of another kind.
        raise SpecError(
            at or cls.__name__, f"does not fit {cls.__name__} ({error})", given
        ) from None


def _unknown(at: str, reason: str, name: Any, known: Iterable[str], value: Any) -> SpecError:
    hint = suggestion(name, known) if isinstance(name, str) else ""
    return SpecError(at, f"{reason} ({hint})" if hint else reason, value)


def key_of(field: attrs.Attribute[Any], *, tagged: bool) -> str:
    """How a field is called in a file: beside the class in ``type``, one gets an underline."""
    return "type_" if tagged and field.name == "type" else field.alias or field.name


def _inside(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key
