"""Nodes of QEMU's block layer as values, and how a tree of them becomes one ``-blockdev``.

A node holds other nodes (``file``, ``backing``) and secrets in its fields. `lay` walks the
tree once: every node gets a name, every secret becomes an object, and what is left is the
JSON that QEMU takes. One option for the whole tree means that a plug either opens all of
it or nothing, and that deleting the top node deletes all below.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, TypeAlias

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.disk.secret import Secret
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import NULL, Option

#: What a walk yields on its way (secrets and their needs) before it returns the JSON.
Laid: TypeAlias = Generator[Option | Need, None, dict[str, Any]]


class BlockNode:
    """A node of the block layer. Every field is a property of QEMU's of the same name."""

    __slots__ = ()

    @property
    def driver(self) -> str:
        """QEMU's name of the block driver."""
        raise NotImplementedError

    @property
    def properties(self) -> dict[str, Any]:
        """What ``blockdev-add`` takes for it; may hold nodes and secrets."""
        return {
            name.replace("_", "-"): value
            for name, value in attrs.asdict(self, recurse=False).items()  # type: ignore[arg-type]
            if value is not None
        }


@frozen
class Node(BlockNode):
    """Any node, in QEMU's words: ``Node("blkdebug", {"image": File("x.raw")})``."""

    driver: str = field(validator=fields.name)
    options: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping))

    @property
    def properties(self) -> dict[str, Any]:
        return dict(self.options)


@frozen
class Place:
    """Where in the tree a walk is; names grow from here.

    A chain of backing nodes is numbered (``disk0-backing2``) instead of nested, because
    QEMU's node names end at 31 characters.
    """

    base: str
    depth: int = 0

    @property
    def prefix(self) -> str:
        """What the names of children begin with."""
        return f"{self.base}-backing{self.depth}" if self.depth else self.base

    def child(self, key: str) -> Place:
        """The place of the child under property `key`."""
        if key == "backing":
            return Place(self.base, self.depth + 1)
        return Place(f"{self.prefix}-{key}")


def lay(node: BlockNode, name: str, place: Place, given: Mapping[str, Any] | None = None) -> Laid:
    """Yield the objects that `node` and all below it need; return its JSON, named `name`.

    `given` are properties set from outside; one that the node sets too is a contradiction.
    """
    check_name(name)
    own = node.properties
    for key in (given or {}).keys() & own.keys():
        raise SpecError(key.replace("-", "_"), "is set by the node as well", own[key])
    properties: dict[str, Any] = {"driver": node.driver, "node-name": name, **(given or {})}
    for key, value in own.items():
        properties[key] = yield from _value(value, key, place)
    return properties


def _value(value: Any, key: str, place: Place) -> Generator[Option | Need, None, Any]:
    if isinstance(value, BlockNode):
        below = place.child(key)
        return (yield from lay(value, below.prefix, below))
    if isinstance(value, Secret):
        id = f"{place.prefix}-{'secret' if key == 'key-secret' else key}"
        yield from value.options(id)
        return id
    if isinstance(value, Mapping):
        laid = {}
        for word, item in value.items():
            laid[word] = yield from _value(item, word, place)
        return laid
    if isinstance(value, list | tuple):
        items = []
        for number, item in enumerate(value):
            items.append((yield from _value(item, f"{key}{number}", place)))
        return items
    return NULL if value is None else value


def check_name(name: str) -> None:
    """QEMU refuses longer node names ("Node name too long"); raises `SpecError`."""
    if len(name) > 31:
        raise SpecError("id", "must be shorter: QEMU's node names end at 31 characters", name)
