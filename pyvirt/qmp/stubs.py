"""A schema as the text of a ``.pyi``, so that editors and mypy know one QEMU's commands.

An object becomes a `TypedDict`; one with variants becomes a `TypedDict` for each case and a
union of them, and a command that takes such an object becomes one overload for each case.
Types have no names in a schema: they are named after where they are first met.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

from attrs import frozen

from pyvirt.qmp.check import OPEN
from pyvirt.qmp.commands import python_name
from pyvirt.qmp.schema import (
    Alternate,
    Array,
    Builtin,
    CommandInfo,
    Enum,
    Object,
    Schema,
)

_JSON = {"string": "str", "int": "int", "number": "float", "boolean": "bool", "null": "None",
         "object": "dict[str, Any]", "array": "list[Any]", "value": "Any"}  # fmt: skip

_HEAD = '''\
"""The QMP commands of {name}, written by ``pyvirt qmp-stubs``.

    if TYPE_CHECKING:
        from {module} import Commands
    qmp: Commands = running.qmp
"""

from collections.abc import Awaitable, Mapping
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, overload
'''


_EXECUTE = """\
    def execute(
        self, name: str, arguments: Mapping[str, Any] | None = ..., **options: Any
    ) -> {}: ..."""


@frozen
class _Field:
    """One member of one case of an object, its type written out."""

    name: str
    type: str
    optional: bool


Shape: TypeAlias = tuple[_Field, ...]


def stub(schema: Schema, name: str = "QEMU", module: str = "qemu_commands") -> str:
    """The text of a ``.pyi`` with the classes ``Commands`` and ``AwaitedCommands``."""
    writer = _Writer(schema)
    classes = [
        line
        for title, result in (("Commands", "{}"), ("AwaitedCommands", "Awaitable[{}]"))
        for line in ("", f"class {title}:", *writer.methods(result))
    ]
    head = _HEAD.format(name=name, module=module)
    return "\n".join([head, *writer.definitions(), *classes, ""])


class _Writer:
    """Remembers which types were named, and how each is defined."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._names: dict[str, str] = {}
        self._used: set[str] = {"Commands", "AwaitedCommands"}
        self._definitions: dict[str, list[str]] = {}
        infos = [schema.command(name) for name in schema.commands]
        self._arguments = {info.arg_type: f"{_camel(info.name)}Arguments" for info in infos}

    def methods(self, result: str) -> Iterator[str]:
        yield _EXECUTE.format(result.format("Any"))
        for command in self._schema.commands:
            yield from self._method(self._schema.command(command), result)

    def definitions(self) -> Iterator[str]:
        """All types that methods mentioned; names come from the commands that use them."""
        for name in self._schema.commands:
            info = self._schema.command(name)
            self._shapes(self._schema.object_of(info.arg_type), _camel(name))
            self._type(info.ret_type, f"{_camel(name)}Result")
        for lines in self._definitions.values():
            yield from lines

    def _method(self, info: CommandInfo, result: str) -> Iterator[str]:
        shapes = self._shapes(self._schema.object_of(info.arg_type), _camel(info.name))
        returned = result.format(self._type(info.ret_type, f"{_camel(info.name)}Result"))
        for shape in shapes:
            if len(shapes) > 1:
                yield "    @overload"
            takes = _parameters(shape, info.name in OPEN)
            yield f"    def {python_name(info.name)}(self{takes}) -> {returned}: ..."

    def _type(self, name: str, hint: str) -> str:
        """How a type is written; `hint` names it if it has no name yet."""
        match self._schema.type_of(name):
            case Builtin(json_type=kind):
                return _JSON[kind]
            case Array(element_type=element):
                return f"list[{self._type(element, _singular(hint))}]"
            case Alternate(members=members):
                return " | ".join(self._type(one.type, hint) for one in members)
            case Enum() as entity:
                return self._name(name, hint) or self._define_enum(entity)
            case Object(members=(), variants=()):
                return "dict[str, Any]"
            case Object() as entity:
                return self._name(name, hint) or self._define_object(entity)

    def _name(self, name: str, hint: str) -> str | None:
        """The name that a type has; None, with one given to it, at first."""
        if name in self._names:
            return self._names[name]
        self._names[name] = self._free(self._arguments.get(name, hint))
        return None

    def _free(self, hint: str) -> str:
        """A name like `hint` that nothing has yet."""
        name, number = hint, 1
        while name in self._used:
            number += 1
            name = f"{hint}{number}"
        self._used.add(name)
        return name

    def _define_enum(self, entity: Enum) -> str:
        name = self._names[entity.name]
        self._definitions[entity.name] = [f"{name}: TypeAlias = {_literal(entity.values)}"]
        return name

    def _define_object(self, entity: Object) -> str:
        name = self._names[entity.name]
        lines = self._definitions[entity.name] = []
        shapes = self._shapes(entity, name)
        cases = [name] if len(shapes) == 1 else [self._free(f"{name}{i}") for i in _from_1(shapes)]
        for case, shape in zip(cases, shapes, strict=True):
            lines.append(f'{case} = TypedDict("{case}", {{')
            lines += [f'    "{field.name}": {_entry(field)},' for field in shape]
            lines.append("})")
        if len(cases) > 1:
            lines.append(f"{name}: TypeAlias = {' | '.join(cases)}")
        return name

    def _shapes(self, entity: Object, hint: str) -> list[Shape]:
        """The cases of an object: one, or one for each value of its tag (and of theirs)."""
        base = tuple(
            _Field(member.name, self._type(member.type, hint + _camel(member.name)),
                   member.optional)
            for member in entity.members
        )  # fmt: skip
        if entity.tag is None:
            return [base]
        return [
            (*_tagged(base, entity.tag, cases), *inner)
            for cases, variant in self._cases(entity)
            for inner in self._inner(variant, hint + _camel(cases[0]))
        ]

    def _inner(self, variant: str | None, hint: str) -> list[Shape]:
        return self._shapes(self._schema.object_of(variant), hint) if variant else [()]

    def _cases(self, entity: Object) -> list[tuple[tuple[str, ...], str | None]]:
        """Values of the tag with what they add: values that add the same are together."""
        tag = next(member for member in entity.members if member.name == entity.tag)
        values = self._schema.type_of(tag.type)
        assert isinstance(values, Enum)
        added = {variant.case: variant.type for variant in entity.variants}
        together: dict[str | None, list[str]] = {}
        for value in values.values:
            kind = added.get(value)
            if kind is not None and not self._schema.object_of(kind).members:
                kind = None
            together.setdefault(kind, []).append(value)
        return [(tuple(cases), kind) for kind, cases in together.items()]


def _tagged(base: Shape, tag: str, cases: tuple[str, ...]) -> Shape:
    """`base` with its tag narrowed to the values of one case."""
    return tuple(
        _Field(tag, _literal(cases), field.optional) if field.name == tag else field
        for field in base
    )


def _parameters(shape: Shape, is_open: bool) -> str:
    keywords = [
        f"{python_name(field.name)}: {field.type}{' = ...' if field.optional else ''}"
        for field in sorted(shape, key=lambda field: field.optional)
    ]
    first = ["arguments: Mapping[str, Any] = ...", "/"] if is_open else []
    rest = ["**properties: Any"] if is_open else []
    return "".join(f", {part}" for part in (*first, *["*"][: len(keywords)], *keywords, *rest))


def _entry(field: _Field) -> str:
    return f"NotRequired[{field.type}]" if field.optional else field.type


def _literal(values: tuple[str, ...]) -> str:
    return f"Literal[{', '.join(repr(value) for value in values)}]"


def _from_1(shapes: list[Shape]) -> range:
    return range(1, len(shapes) + 1)


def _camel(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[^0-9A-Za-z]+", name))


def _singular(hint: str) -> str:
    return hint.removesuffix("s") if not hint.endswith("ss") else hint
