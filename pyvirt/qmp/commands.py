"""QEMU's own commands as Python callables: completed, checked and documented by its schema."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from pyvirt.errors import UnsupportedError
from pyvirt.qmp.check import OPEN, conform, spelled
from pyvirt.qmp.schema import (
    Alternate,
    Array,
    Builtin,
    CommandInfo,
    Enum,
    Member,
    Object,
    Schema,
    suggestion,
)

R = TypeVar("R")

_JSON = {"string": "str", "int": "int", "number": "float", "boolean": "bool", "null": "None",
         "object": "dict", "array": "list", "value": "Any"}  # fmt: skip
_SHOWN = 6  # values of an enumeration that a documentation lists


class Commands(Generic[R]):
    """``qmp.query_block()``, ``qmp.blockdev_add(driver=..., node_name=...)`` and so on.

    Each attribute is one command. `_` stands for `-`; names that Python cannot write go into
    a mapping given first: ``qmp.device_add({"num-queues": 2}, driver=...)``. Called, it takes
    what ``execute`` takes besides arguments: ``qmp(timeout=5).stop()``.
    """

    def __init__(
        self, schema: Callable[[], Schema], execute: Callable[..., R], **options: Any
    ) -> None:
        self._schema, self._execute, self._options = schema, execute, options

    def __call__(self, **options: Any) -> Commands[R]:
        return Commands(self._schema, self._execute, **{**self._options, **options})

    def execute(
        self, name: str, arguments: Mapping[str, Any] | None = None, **options: Any
    ) -> R:
        """The raw way: command `name` with `arguments` as they are, unchecked.

        `options` are those of the monitor's ``execute`` (``timeout``, ``fds``, ``oob``).
        """
        return self._execute(name, arguments, **{**self._options, **options})

    def __getattr__(self, name: str) -> TypedCommand[R]:
        if name.startswith("_"):  # a notebook asks for _repr_html_ and the like
            raise AttributeError(name)
        schema = self._schema()
        command = spelled(name, schema.commands)
        if command is None:
            hint = suggestion(name.replace("_", "-"), schema.commands)
            raise UnknownCommand(name, hint)
        return TypedCommand(schema, schema.command(command), self._execute, self._options)

    def __dir__(self) -> Iterator[str]:
        yield "execute"
        yield from (python_name(name) for name in self._schema().commands)

    def __repr__(self) -> str:
        return f"<{len(self._schema().commands)} QMP commands>"


class UnknownCommand(UnsupportedError, AttributeError):
    """This QEMU has no such command; an `AttributeError`, because it was asked for as one."""

    def __init__(self, name: str, hint: str) -> None:
        super().__init__(f"command {name!r}", "this QEMU", hint)
        self.name = name


class TypedCommand(Generic[R]):
    """One command of this QEMU. Its arguments are checked before they are sent."""

    def __init__(
        self,
        schema: Schema,
        info: CommandInfo,
        execute: Callable[..., R],
        options: Mapping[str, Any],
    ) -> None:
        self.schema, self.info = schema, info
        self.__name__ = python_name(info.name)
        self.__qualname__ = self.__name__
        self._execute, self._options = execute, options

    def __call__(self, arguments: Mapping[str, Any] | None = None, /, **more: Any) -> R:
        given = conform(self.schema, self.info.name, {**(arguments or {}), **more})
        return self._execute(self.info.name, given, **self._options)

    @property
    def __signature__(self) -> inspect.Signature:
        return signature(self.schema, self.info)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return documentation(self.schema, self.info)

    def __repr__(self) -> str:
        return f"<QMP command {self.info.name}{self.__signature__}>"


def python_name(name: str) -> str:
    """How Python writes a name of QEMU: ``node_name``, ``from_``."""
    written = name.replace("-", "_").replace(".", "_")
    return f"{written}_" if keyword.iskeyword(written) else written


def signature(schema: Schema, info: CommandInfo) -> inspect.Signature:
    """What the command takes, in keywords; what depends on a tag's value is ``**variant``."""
    entity = schema.object_of(info.arg_type)
    parameters = [_parameter(schema, member) for member in entity.members]
    parameters.sort(key=lambda parameter: parameter.default is None)
    if entity.tag:
        parameters.append(_rest("variant", f"by {entity.tag}"))
    elif info.name in OPEN:
        parameters.append(_rest("properties", "Any"))
    returned = _Words(described(schema, info.ret_type))
    return inspect.Signature(parameters, return_annotation=returned)


class _Words(str):
    """An annotation that is shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _rest(name: str, annotation: str) -> inspect.Parameter:
    kind = inspect.Parameter.VAR_KEYWORD
    return inspect.Parameter(name, kind, annotation=_Words(annotation))


def _parameter(schema: Schema, member: Member) -> inspect.Parameter:
    return inspect.Parameter(
        python_name(member.name),
        inspect.Parameter.KEYWORD_ONLY,
        default=None if member.optional else inspect.Parameter.empty,
        annotation=_Words(described(schema, member.type)),
    )


def described(schema: Schema, name: str) -> str:
    """A type in a word or two."""
    match schema.type_of(name):
        case Builtin(json_type=kind):
            return _JSON[kind]
        case Enum(values=values):
            shown = [repr(value) for value in values[:_SHOWN]]
            return " | ".join(shown + ["..."] * (len(values) > _SHOWN))
        case Array(element_type=element):
            return f"list[{described(schema, element)}]"
        case Alternate(members=members):
            return " | ".join(described(schema, one.type) for one in members)
        case Object(members=(), variants=()):
            return "{}"
        case Object():
            return "dict"


def documentation(schema: Schema, info: CommandInfo) -> str:
    """What the schema knows of a command, as text."""
    entity = schema.object_of(info.arg_type)
    lines = [f"QMP command ``{info.name}``.", *_notes(info)]
    if entity.members:
        lines += ["", "Takes:", *_members(schema, entity, "    ")]
    if entity.tag:
        lines += ["", f"Further, by the value of {entity.tag}:"]
        for variant in entity.variants:
            names = [_named(member) for member in schema.object_of(variant.type).members]
            lines.append(f"    {variant.case}: {', '.join(names) or 'nothing'}")
    lines += ["", f"Returns: {described(schema, info.ret_type)}"]
    lines += _returned(schema, info.ret_type)
    return "\n".join(lines)


def _notes(info: CommandInfo) -> list[str]:
    notes = [f"It is {word}." for word in ("deprecated", "unstable") if word in info.features]
    if info.allow_oob:
        notes.append("It may run out of band.")
    if info.name in OPEN:
        notes.append("It takes every property of the device as well.")
    return ["", *notes] if notes else []


def _members(schema: Schema, entity: Object, indent: str) -> list[str]:
    return [
        f"{indent}{_named(member)}: {described(schema, member.type)}"
        + "".join(f" [{feature}]" for feature in member.features)
        for member in entity.members
    ]


def _named(member: Member) -> str:
    return f"{member.name}{' (optional)' if member.optional else ''}"


def _returned(schema: Schema, name: str) -> list[str]:
    entity = schema.type_of(name)
    if isinstance(entity, Array):
        entity = schema.type_of(entity.element_type)
    return _members(schema, entity, "    ") if isinstance(entity, Object) else []
