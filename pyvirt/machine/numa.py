"""NUMA nodes of the guest: whose memory is near which vCPU, and how far the others are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, permutations
from typing import Any

from attrs import field

from pyvirt.errors import SpecError
from pyvirt.fields import between, choice, each, frozen, optional, positive, to_size, to_tuple
from pyvirt.qemu.option import Option

_node = between(0, 127)

# ACPI's distance to oneself; QEMU wants larger ones to others, and 255 says "cannot reach".
_NEAR = 10


@frozen
class NumaNode:
    """One node: `size` of the memory in it, its vCPUs, how far it is to other nodes.

    `cpus` are indexes of vCPUs. `distances` maps other nodes to 11…255 (twice as far as
    one's own is 20). `host_nodes` and `policy` say where the host keeps its memory.
    `initiator` is the node that reaches this memory fastest, for HMAT.
    """

    size: int = field(default=0, converter=to_size, validator=between(0, 1 << 62))
    cpus: tuple[int, ...] = field(
        default=(), converter=to_tuple, validator=each(between(0, 4095)), kw_only=True
    )
    distances: Mapping[int, int] = field(factory=dict, kw_only=True)
    host_nodes: tuple[int, ...] = field(
        default=(), converter=to_tuple, validator=each(_node), kw_only=True
    )
    policy: str | None = field(
        default=None,
        validator=optional(choice("default", "preferred", "bind", "interleave")),
        kw_only=True,
    )
    initiator: int | None = field(default=None, validator=optional(_node), kw_only=True)

    def __attrs_post_init__(self) -> None:
        for other, distance in self.distances.items():
            if not _NEAR < distance <= 255:
                raise SpecError("distances", "must be from 11 to 255", {other: distance})

    @property
    def binding(self) -> dict[str, Any]:
        """What it changes in the backing of the memory."""
        if not self.host_nodes:
            return {}
        return {"host_nodes": self.host_nodes, "policy": self.policy or "bind"}


@frozen
class Locality:
    """How fast `initiator` reaches the memory of `target` (HMAT): ns, or bytes a second."""

    initiator: int = field(validator=_node)
    target: int = field(validator=_node)
    latency: int | None = field(default=None, validator=optional(positive), kw_only=True)
    bandwidth: int | None = field(
        default=None, converter=to_size, validator=optional(positive), kw_only=True
    )
    hierarchy: str = field(
        default="memory",
        validator=choice("memory", "first-level", "second-level", "third-level"),
        kw_only=True,
    )
    access: str = field(default="access", validator=choice("access", "read", "write"), kw_only=True)

    def __attrs_post_init__(self) -> None:
        if (self.latency is None) == (self.bandwidth is None):
            raise SpecError("latency", "or bandwidth must be given, and not both", self.latency)

    def option(self) -> Option:
        """The ``-numa hmat-lb``."""
        what = "latency" if self.latency is not None else "bandwidth"
        properties = {
            "type": "hmat-lb",
            "initiator": self.initiator,
            "target": self.target,
            "hierarchy": self.hierarchy,
            "data-type": f"{self.access}-{what}",
            what: self.latency if self.latency is not None else f"{self.bandwidth}B",
        }
        return Option("numa", properties)


@frozen
class Cache:
    """A cache in front of the memory of `node` (HMAT); `line` is in bytes."""

    node: int = field(validator=_node)
    size: int = field(converter=to_size, validator=positive)
    level: int = field(default=1, validator=between(1, 3))
    associativity: str = field(
        default="none", validator=choice("none", "direct", "complex"), kw_only=True
    )
    policy: str = field(
        default="none", validator=choice("none", "write-back", "write-through"), kw_only=True
    )
    line: int = field(default=64, validator=between(1, 65535), kw_only=True)

    def option(self) -> Option:
        """The ``-numa hmat-cache``."""
        properties = {"node-id": self.node, "size": f"{self.size}B", "level": self.level}
        more = {"associativity": self.associativity, "policy": self.policy, "line": self.line}
        return Option("numa", {"type": "hmat-cache", **properties, **more})


def check_nodes(nodes: Sequence[NumaNode]) -> None:
    """Raise `SpecError` for what no node can know alone."""
    seen: set[int] = set()
    for number, node in enumerate(nodes):
        for cpu in node.cpus:
            if cpu in seen:
                raise SpecError(f"nodes[{number}].cpus", "must be in one node only", cpu)
            seen.add(cpu)
        for other in node.distances:
            if other == number or not 0 <= other < len(nodes):
                raise SpecError(f"nodes[{number}].distances", "must name another node", other)
    _check_complete(nodes)


def _check_complete(nodes: Sequence[NumaNode]) -> None:
    """Raise for distances that QEMU cannot fill in.

    One direction of each pair is enough; as soon as one pair differs by direction, both
    directions of every pair are needed.
    """
    known = {(a, b): d for a, node in enumerate(nodes) for b, d in node.distances.items()}
    both_ways = any(known.get((b, a), distance) != distance for (a, b), distance in known.items())
    why = "since a pair differs by direction" if both_ways else "as others have one"
    for a, b in permutations(range(len(nodes)), 2) if known else ():
        if (a, b) not in known and (both_ways or (b, a) not in known):
            reason = f"must hold the distance to node {b}, {why}"
            raise SpecError(f"nodes[{a}].distances", reason, dict(nodes[a].distances))


def numa(nodes: Sequence[NumaNode], hmat: Iterable[Locality | Cache]) -> Iterator[Option]:
    """The ``-numa`` options for nodes whose memory objects are ram0, ram1, …"""
    for number, node in enumerate(nodes):
        words = ["node", f"nodeid={number}"]
        words += [f"memdev=ram{number}"] if node.size else []
        words += [f"cpus={span}" for span in spans(node.cpus)]
        words += [f"initiator={node.initiator}"] if node.initiator is not None else []
        # A word, not a mapping: cpus may come several times.
        yield Option("numa", ",".join(words))
    for number, node in enumerate(nodes):
        for other, distance in sorted(node.distances.items()):
            properties = {"type": "dist", "src": number, "dst": other, "val": distance}
            yield Option("numa", properties)
    yield from (entry.option() for entry in hmat)


def spans(numbers: Iterable[int]) -> Iterator[str]:
    """Runs of consecutive numbers as QEMU writes them: ``0-3``, ``5``."""
    ordered = sorted(set(numbers))
    for _, run in groupby(enumerate(ordered), key=lambda item: item[1] - item[0]):
        members = [number for _, number in run]
        yield f"{members[0]}-{members[-1]}" if len(members) > 1 else str(members[0])
