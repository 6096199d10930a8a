"""A command's arguments, held against the schema before they are sent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from pyvirt.errors import SpecError
from pyvirt.qmp.schema import (
    Alternate,
    Array,
    Builtin,
    Enum,
    Member,
    Object,
    Schema,
    Type,
    suggestion,
)

OPEN = frozenset({"device_add"})
"""Commands that take more members than the schema tells (``'gen': false`` in qapi/qdev.json):
the properties of the device."""

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str, os.PathLike),
    "int": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (Mapping,),
    "array": (list, tuple),
    "value": (object,),
}
_ARTICLES = {"string": "a string", "int": "an integer", "number": "a number",
             "boolean": "True or False", "null": "None", "object": "an object",
             "array": "a list"}  # fmt: skip


def conform(schema: Schema, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` as QEMU spells them; `SpecError` names the path of what does not fit.

    ``_`` stands for ``-`` where the schema has a dash there, on all levels.
    """
    entity = schema.object_of(schema.command(command).arg_type)
    return _object(schema, entity, arguments, command, is_open=command in OPEN)


def spelled(name: str, known: Iterable[str]) -> str | None:
    """Which of the `known` names a Python name stands for: ``node_name``, ``from_``."""
    bare = name.removesuffix("_")
    for candidate in (name, bare, name.replace("_", "-"), bare.replace("_", "-")):
        if candidate in known:
            return candidate
    return next((one for one in known if one.replace("-", "_") == bare), None)


def _value(schema: Schema, name: str, value: Any, path: str) -> Any:
    entity = schema.type_of(name)
    match entity:
        case Builtin():
            return _builtin(entity.json_type, value, path)
        case Enum():
            return _enum(entity, value, path)
        case Array():
            _expect("array", value, path)
            return [
                _value(schema, entity.element_type, item, f"{path}[{i}]")
                for i, item in enumerate(value)
            ]
        case Object():
            return _object(schema, entity, value, path)
        case Alternate():
            return _value(schema, _chosen(schema, entity, value, path), value, path)


def _builtin(kind: str, value: Any, path: str) -> Any:
    _expect(kind, value, path)
    if kind == "int" and not -(1 << 63) <= value < 1 << 64:
        raise SpecError(path, "must fit into 64 bits", value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _expect(kind: str, value: Any, path: str) -> None:
    if not _is(kind, value):
        raise SpecError(path, f"must be {_ARTICLES[kind]}", value)


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool) and kind in ("int", "number"):
        return False  # JSON tells them apart, Python does not
    return isinstance(value, _KINDS[kind])


def _enum(entity: Enum, value: Any, path: str) -> str:
    _expect("string", value, path)
    if value in entity.values:
        return str(value)
    hint = suggestion(str(value), entity.values)
    listed = ", ".join(entity.values[:8]) + (", ..." if len(entity.values) > 8 else "")
    raise SpecError(path, (hint and f"is unknown ({hint})") or f"must be one of {listed}", value)


def _object(
    schema: Schema, entity: Object, value: Any, path: str, *, is_open: bool = False
) -> dict[str, Any]:
    _expect("object", value, path)
    members = {member.name: member for member in entity.members}
    members |= _variant_members(schema, entity, members, value, path)
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = spelled(key, members) if isinstance(key, str) else None
        if name is None and not (is_open and isinstance(key, str)):
            hint = suggestion(str(key).replace("_", "-"), members)
            raise SpecError(f"{path}.{key}", f"is unknown{hint and f' ({hint})'}", item)
        if (name or key) in found:
            raise SpecError(f"{path}.{name or key}", "must be given once", item)
        found[name or key] = (
            item if name is None else _value(schema, members[name].type, item, f"{path}.{name}")
        )
    _complete(members, found, path)
    return found


def _complete(members: Mapping[str, Member], found: Mapping[str, Any], path: str) -> None:
    for member in members.values():
        if not member.optional and member.name not in found:
            raise SpecError(f"{path}.{member.name}", "is missing", found)


def _variant_members(
    schema: Schema, entity: Object, members: Mapping[str, Member], value: Any, path: str
) -> dict[str, Member]:
    """The members that come with the value of the tag, of that value's own tag, and so on."""
    if entity.tag is None:
        return {}
    given = next((item for key, item in value.items() if spelled(key, [entity.tag])), None)
    if given is None:
        raise SpecError(f"{path}.{entity.tag}", "is missing", value)
    case = _value(schema, members[entity.tag].type, given, f"{path}.{entity.tag}")
    variant = next((v.type for v in entity.variants if v.case == case), None)
    if variant is None:
        return {}
    inner = schema.object_of(variant)
    own = {member.name: member for member in inner.members}
    return own | _variant_members(schema, inner, {**members, **own}, value, path)


def _chosen(schema: Schema, entity: Alternate, value: Any, path: str) -> str:
    """The type of an alternate that `value` is; its alternatives differ in their JSON type."""
    kinds = {_json_type(schema.type_of(one.type)): one.type for one in entity.members}
    for kind, name in kinds.items():
        if _is(kind, value):
            return name
    raise SpecError(path, "must be " + " or ".join(_ARTICLES[kind] for kind in kinds), value)


def _json_type(entity: Type) -> str:
    match entity:
        case Builtin():
            return entity.json_type
        case Enum():
            return "string"
        case Array():
            return "array"
        case _:
            return "object"
