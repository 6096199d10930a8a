"""QEMU's description of its own commands and events (``query-qmp-schema``), as values.

Types are known by QEMU's masked names ("123"): their real ones are not told. The cached form
is an index of undecoded entities, so that loading it costs little and asking for one
command decodes what belongs to that command only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias, TypeVar

import msgspec

from pyvirt.errors import SpecError, UnsupportedError

FORM = 1
"""The version of the cached form."""


class _Entity(msgspec.Struct, frozen=True, tag_field="meta-type", rename="kebab"):
    name: str


class Builtin(_Entity, frozen=True, tag="builtin"):
    """A JSON type: string, int, number, boolean, null, object, array or value."""

    json_type: str


class EnumMember(msgspec.Struct, frozen=True):
    """One value of an enumeration."""

    name: str
    features: tuple[str, ...] = ()


class Enum(_Entity, frozen=True, tag="enum"):
    """One of a few strings."""

    values: tuple[str, ...]
    members: tuple[EnumMember, ...] = ()


class Array(_Entity, frozen=True, tag="array"):
    """Any number of one type."""

    element_type: str


class Member(msgspec.Struct, frozen=True):
    """One member of an object; `optional` unless it must be there."""

    name: str
    type: str
    default: Any = msgspec.UNSET
    features: tuple[str, ...] = ()

    @property
    def optional(self) -> bool:
        return self.default is not msgspec.UNSET


class Variant(msgspec.Struct, frozen=True):
    """What else an object holds when its tag is `case`."""

    case: str
    type: str


class Object(_Entity, frozen=True, tag="object"):
    """Members, and for each value of the member `tag` further ones."""

    members: tuple[Member, ...] = ()
    tag: str | None = None
    variants: tuple[Variant, ...] = ()


class Alternative(msgspec.Struct, frozen=True):
    """One of the types of an alternate."""

    type: str


class Alternate(_Entity, frozen=True, tag="alternate"):
    """One of several types, told apart by their JSON type."""

    members: tuple[Alternative, ...]


class CommandInfo(_Entity, frozen=True, tag="command"):
    """A command: what it takes, what it returns, whether it may run out of band."""

    arg_type: str
    ret_type: str
    allow_oob: bool = False
    features: tuple[str, ...] = ()


class EventInfo(_Entity, frozen=True, tag="event"):
    """An event and its data."""

    arg_type: str
    features: tuple[str, ...] = ()


Type: TypeAlias = Builtin | Enum | Array | Object | Alternate
Entity: TypeAlias = Type | CommandInfo | EventInfo
E = TypeVar("E", bound=_Entity)


class _Cached(msgspec.Struct, array_like=True):
    form: int
    commands: tuple[str, ...]
    events: tuple[str, ...]
    entities: dict[str, msgspec.Raw]


_decode_reply = msgspec.json.Decoder(list[Entity]).decode
_decode_cached = msgspec.msgpack.Decoder(_Cached).decode
_decode_entity = msgspec.msgpack.Decoder(Entity).decode


class Schema:
    """All commands, events and types of one QEMU."""

    def __init__(
        self,
        commands: tuple[str, ...],
        events: tuple[str, ...],
        entities: dict[str, Entity],
        undecoded: Mapping[str, msgspec.Raw] | None = None,
    ) -> None:
        self.commands, self.events = commands, events
        self._entities, self._undecoded = entities, undecoded or {}

    @classmethod
    def decode(cls, reply: bytes) -> Schema:
        """The schema in what ``query-qmp-schema`` returned, as JSON."""
        try:
            entities = {entity.name: entity for entity in _decode_reply(reply)}
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise SpecError("schema", f"cannot be read ({error})", reply[:40]) from None
        names = {
            kind: tuple(sorted(n for n, entity in entities.items() if isinstance(entity, kind)))
            for kind in (CommandInfo, EventInfo)
        }
        return cls(names[CommandInfo], names[EventInfo], entities)

    @classmethod
    def from_bytes(cls, data: bytes) -> Schema:
        """The schema that `to_bytes` put into `data`; entities are decoded when asked for."""
        try:
            cached = _decode_cached(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise SpecError("cached schema", f"cannot be read ({error})", data[:40]) from None
        if cached.form != FORM:
            raise SpecError("cached schema", f"must have form {FORM}", cached.form)
        return cls(cached.commands, cached.events, {}, cached.entities)

    def to_bytes(self) -> bytes:
        """The cached form of this schema."""
        names = [*self._undecoded] or [*self._entities]
        entities = {name: msgspec.Raw(self._encoded(name)) for name in names}
        return msgspec.msgpack.encode(_Cached(FORM, self.commands, self.events, entities))

    def command(self, name: str) -> CommandInfo:
        """What is known of command `name`; `UnsupportedError` when this QEMU has none."""
        if name not in self.commands:
            hint = suggestion(name, self.commands)
            raise UnsupportedError(f"command {name!r}", "this QEMU", hint)
        return self._get(name, CommandInfo)

    def event(self, name: str) -> EventInfo:
        """What is known of event `name`; `UnsupportedError` when this QEMU has none."""
        if name not in self.events:
            hint = suggestion(name, self.events)
            raise UnsupportedError(f"event {name!r}", "this QEMU", hint)
        return self._get(name, EventInfo)

    def type_of(self, name: str) -> Type:
        """The type with QEMU's name for it."""
        entity = self._entity(name)
        if isinstance(entity, CommandInfo | EventInfo):
            raise SpecError("schema", "must name a type", name)
        return entity

    def object_of(self, name: str) -> Object:
        """The object type with QEMU's name for it: what commands take and events carry."""
        return self._get(name, Object)

    def _get(self, name: str, kind: type[E]) -> E:
        entity = self._entity(name)
        if not isinstance(entity, kind):
            raise SpecError("schema", f"must name a {kind.__name__}", name)
        return entity

    def _entity(self, name: str) -> Entity:
        entity = self._entities.get(name)
        if entity is None:
            if name not in self._undecoded:
                raise SpecError("schema", "refers to what it does not hold", name)
            entity = self._entities[name] = self._decoded(self._undecoded[name])
        return entity

    def _decoded(self, raw: msgspec.Raw) -> Entity:
        try:
            entity: Entity = _decode_entity(raw)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise SpecError("cached schema", f"cannot be read ({error})", bytes(raw)[:40]) from None
        return entity

    def _encoded(self, name: str) -> bytes:
        if name in self._undecoded:
            return bytes(self._undecoded[name])
        return msgspec.msgpack.encode(self._entities[name])

    def __repr__(self) -> str:
        return f"<Schema of {len(self.commands)} commands and {len(self.events)} events>"


def suggestion(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the name most like `name`, or nothing."""
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""
