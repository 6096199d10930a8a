"""QMP commands as people type them: ``blockdev-add driver=raw file.driver=file ...``.

Pure: the schema of the QEMU says what each text stands for, and what may come next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyvirt.cli.words import SWITCH, literal
from pyvirt.errors import SpecError
from pyvirt.qmp.check import spelled
from pyvirt.qmp.schema import Alternate, Array, Builtin, Enum, Member, Object, Schema


def parse(schema: Schema, line: str) -> tuple[str, dict[str, Any]]:
    """The command in `line` with its arguments: words, or one JSON object."""
    return command(schema, split(line))


def split(line: str) -> list[str]:
    """The words of a line. Quotes hold one together and go, but stay in the brackets of JSON."""
    words: list[str] = []
    word, quote, depth, escaped = "", "", 0, False
    begun = False
    for one in line:
        kept = depth > 0
        if quote:
            if one == quote and not escaped:
                quote = ""
            else:
                kept = True
            escaped = depth > 0 and one == "\\" and not escaped
        elif one == '"' or (one == "'" and not depth):
            quote, begun = one, True
        elif one.isspace() and not depth:
            words += [word] if word or begun else []
            word, begun = "", False
        else:
            depth += (one in "[{") - (one in "]}" and depth > 0)
            kept = True
        word += one if kept else ""
    if quote:
        raise SpecError("line", "has a quotation without an end", line)
    return [*words, word] if word or begun else words


def command(schema: Schema, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The same of words that are apart already."""
    name = spelled(words[0], schema.commands) or words[0]
    info = schema.command(name)
    given: dict[str, Any] = {}
    for word in words[1:]:
        _give(given, word)
    return name, _object(schema, schema.object_of(info.arg_type), given)


def complete(schema: Schema, line: str) -> list[str]:
    """What the last word of `line` may become; what is done ends in a space."""
    *before, last = line.split(" ")
    before = [word for word in before if word]
    if not before:
        return [f"{name} " for name in schema.commands if name.startswith(last)]
    name = spelled(before[0], schema.commands)
    if name is None:
        return []
    entity = schema.object_of(schema.command(name).arg_type)
    given: dict[str, Any] = {}
    for word in before[1:]:
        if "=" in word and not word.startswith("{"):
            _give(given, word)
    key, equals, value = last.partition("=")
    if equals:
        return [f"{key}={one} " for one in _values(schema, entity, given, key.split("."))
                if one.startswith(value)]  # fmt: skip
    return _keys(schema, entity, given, last)


def _give(given: dict[str, Any], word: str) -> None:
    if word.startswith("{"):
        given.update(_json(word))
        return
    path, equals, value = word.partition("=")
    if not equals:
        raise SpecError("arguments", 'must be NAME=VALUE or {"NAME": VALUE}', word)
    *steps, last = path.split(".")
    for step in steps:
        inner = given.setdefault(step, {})
        if not isinstance(inner, dict):
            raise SpecError(step, "has a value already", word)
        given = inner
    given[last] = value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError("arguments", f"cannot be read as JSON ({error})", text) from None


def _object(schema: Schema, entity: Object, given: Mapping[str, Any]) -> dict[str, Any]:
    known = {member.name: member for member in _members(schema, entity, given)}
    made = {}
    for key, value in given.items():
        name = spelled(key, known)
        made[key] = literal_of(value) if name is None else _value(schema, known[name].type, value)
    return made


def literal_of(value: Any) -> Any:
    """A text that the schema does not know, in its most likely meaning."""
    if not isinstance(value, str):
        return value
    return _json(value) if value[:1] in ("{", "[") else literal(value)


def _value(schema: Schema, name: str, value: Any) -> Any:
    """`value` as the type `name` wants it; what cannot be so is left for the check."""
    entity = schema.type_of(name)
    if isinstance(value, Mapping):
        return _object(schema, entity, value) if isinstance(entity, Object) else dict(value)
    if not isinstance(value, str) or isinstance(entity, Enum):
        return value
    if value[:1] in ("{", "[") and not _is_text(entity):
        return _json(value)
    match entity:
        case Builtin(json_type=kind):
            return _builtin(kind, value)
        case Array(element_type=element):
            return [_value(schema, element, one) for one in value.split(",") if one]
        case Alternate(members=members):
            return _alternate(schema, [one.type for one in members], value)
    return value


def _is_text(entity: Any) -> bool:
    return isinstance(entity, Builtin) and entity.json_type == "string"


def _builtin(kind: str, value: str) -> Any:
    if kind == "boolean":
        return SWITCH.get(value.lower(), value)
    if kind == "value":
        return literal_of(value)
    try:
        if kind in ("int", "number"):
            return int(value, 0)
    except ValueError:
        if kind == "number":
            return _float(value)
    return None if kind == "null" and value == "null" else value


def _float(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _alternate(schema: Schema, names: Sequence[str], value: str) -> Any:
    """The first alternative that the text can be as something else than text."""
    made = (_value(schema, name, value) for name in names)
    return next((one for one in made if not isinstance(one, str | list)), value)


def _members(schema: Schema, entity: Object, given: Mapping[str, Any]) -> Iterator[Member]:
    """The members that count, those of the case that its tag names included."""
    yield from entity.members
    if entity.tag is not None:
        tag = next((value for key, value in given.items() if spelled(key, [str(entity.tag)])), None)
        for variant in entity.variants:
            if variant.case == tag:
                yield from _members(schema, schema.object_of(variant.type), given)


def _inner(schema: Schema, member: Member) -> Object | None:
    """The object that a member is or may be."""
    entity = schema.type_of(member.type)
    if isinstance(entity, Alternate):
        kinds = (schema.type_of(one.type) for one in entity.members)
        entity = next((one for one in kinds if isinstance(one, Object)), entity)
    return entity if isinstance(entity, Object) else None


def _keys(schema: Schema, entity: Object, given: Mapping[str, Any], begun: str) -> list[str]:
    head, dot, last = begun.partition(".")
    members = list(_members(schema, entity, given))
    if dot:
        below = next((_inner(schema, one) for one in members if one.name == head), None)
        inner = given.get(head, {})
        if below is None or not isinstance(inner, Mapping):
            return []
        return [f"{head}.{word}" for word in _keys(schema, below, inner, last)]
    return [
        f"{member.name}{'.' if _inner(schema, member) else '='}"
        for member in members
        if member.name.startswith(begun) and member.name not in given
    ]


def _values(
    schema: Schema, entity: Object, given: Mapping[str, Any], path: Sequence[str]
) -> Iterator[str]:
    """The values that the member at `path` takes, where they can be counted."""
    member = next((m for m in _members(schema, entity, given) if m.name == path[0]), None)
    if member is None:
        return
    if len(path) > 1:
        below, inner = _inner(schema, member), given.get(path[0], {})
        if below is not None and isinstance(inner, Mapping):
            yield from _values(schema, below, inner, path[1:])
        return
    entity_ = schema.type_of(member.type)
    if isinstance(entity_, Enum):
        yield from entity_.values
    elif isinstance(entity_, Builtin) and entity_.json_type == "boolean":
        yield from ("on", "off")
