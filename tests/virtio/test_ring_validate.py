"""Each breach of virtio 1.2 is listed with its section, and nothing else is."""

from __future__ import annotations

import ast
import inspect
import struct
import sys
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from pyvirt.virtio import breach as rules
from pyvirt.virtio import chaincheck
from pyvirt.virtio.builder import RingBuilder
from pyvirt.virtio.layout import EVENT_IDX, IN_ORDER, INDIRECT_DESC
from pyvirt.virtio.ring import Ring
from pyvirt.virtio.state import Breach

Harm = Callable[[RingBuilder], None]


def built(kind: str) -> RingBuilder:
    """Two chains in flight: slots 0 and 1 directly, slot 2 through an indirect table."""
    builder = RingBuilder(kind, 8)
    builder.publish([b"header"], [16])
    builder.publish([b"a", b"b"], [32], indirect=True)
    return builder


def watched(builder: RingBuilder) -> Ring:
    ring = builder.ring()
    if builder.layout.packed:
        ring.know(0, 1)
    return ring


def poke(form: str, area: str, offset: int, *values: int) -> Harm:
    def harm(builder: RingBuilder) -> None:
        struct.pack_into(form, builder.memory, getattr(builder.layout, area) + offset, *values)

    return harm


def both(*harms: Harm) -> Harm:
    def harm(builder: RingBuilder) -> None:
        for one in harms:
            one(builder)

    return harm


def table(offset: int, form: str, *values: int) -> Harm:
    """Change the indirect table."""

    def harm(builder: RingBuilder) -> None:
        (address,) = struct.unpack_from("<Q", builder.memory, builder.layout.desc + 32)
        struct.pack_into(form, builder.memory, address + offset, *values)

    return harm


def every_slot(flags: int) -> Harm:
    def harm(builder: RingBuilder) -> None:
        for slot in range(builder.layout.size):
            struct.pack_into("<H", builder.memory, builder.layout.desc + 16 * slot + 14, flags)

    return harm


def laid(**changes: int) -> Harm:
    """The ring is elsewhere than where it was built, by as many bytes, or of another size."""

    def harm(builder: RingBuilder) -> None:
        moved = {name: getattr(builder.layout, name) + by for name, by in changes.items()}
        builder.layout = evolve(builder.layout, **moved)

    return harm


def without(features: int) -> Harm:
    """These features were not agreed on."""

    def harm(builder: RingBuilder) -> None:
        bits = builder.layout.features & ~features
        builder.layout = evolve(builder.layout, features=bits)

    return harm


def in_order(builder: RingBuilder) -> None:
    builder.layout = evolve(builder.layout, features=builder.layout.features | IN_ORDER)


def one_longer(builder: RingBuilder) -> None:
    builder.publish([b"x"] * (builder.layout.size + 1), indirect=True)


SPLIT = [
    ("2.7.5", "a descriptor has reserved flags", poke("<H", "desc", 12, 1 | 64)),
    ("2.7.5", "a descriptor points outside guest memory", poke("<Q", "desc", 0, 1 << 50)),
    ("2.7.5", "a chain goes on with a descriptor that is not there", poke("<H", "desc", 14, 8)),
    ("2.7.5.2", "a chain loops", poke("<H", "desc", 14, 0)),
    ("2.7.4.2", "a readable descriptor follows a writable one",
     both(poke("<H", "desc", 12, 3), poke("<H", "desc", 28, 0))),
    ("2.7.5.3.1", "an indirect descriptor is linked to others by NEXT",
     poke("<H", "desc", 32 + 12, 5)),
    ("2.7.5.3", "an indirect table has an impossible length", poke("<I", "desc", 32 + 8, 47)),
    ("2.7.5.3", "an indirect table is not in guest memory", poke("<Q", "desc", 32, 1 << 50)),
    ("2.7.5.3.1", "an indirect table holds another", table(12, "<H", 5)),
    ("2.7.5.3", "a chain goes on with a descriptor that is not there", table(14, "<H", 9)),
    ("2.7.6", "the avail ring names a descriptor that is not there", poke("<H", "driver", 4, 8)),
    ("2.7", "more chains are in flight than the queue has entries",
     poke("<H", "driver", 2, 900)),
    ("2.7.7.1", "the driver sets flags although RING_EVENT_IDX was agreed on",
     poke("<H", "driver", 0, 1)),
    ("2.7.10.2", "the device sets flags although RING_EVENT_IDX was agreed on",
     poke("<H", "device", 0, 1)),
    ("2.7.8", "the used ring names a descriptor that is not there",
     poke("<HII", "device", 2, 1, 8, 0)),
    ("2.7.8", "the device used a chain that was not in flight",
     poke("<HII", "device", 2, 1, 5, 0)),
    ("2.7.13.1", "chains 0 and 1 share a descriptor", poke("<H", "driver", 6, 1)),
    ("2.7.7.1", "the driver sets reserved flags",
     both(poke("<H", "driver", 0, 2), without(EVENT_IDX))),
    ("2.7.10.2", "the device sets reserved flags",
     both(poke("<H", "device", 0, 2), without(EVENT_IDX))),
    ("2.7.5.3.1", "a descriptor is indirect although RING_INDIRECT_DESC was not agreed on",
     without(INDIRECT_DESC)),
    ("2.7.5.3.1", "a chain is longer than the queue size", one_longer),
    ("2.7.5.2", "a chain has more than 2^32 bytes",
     both(poke("<I", "desc", 8, 0xFFFFFFFF), poke("<I", "desc", 24, 0xFFFFFFFF))),
    ("2.7.5.2", "a chain jumps although IN_ORDER was agreed on",
     both(poke("<H", "desc", 14, 2), in_order)),
    ("2.7.5.3.1", "a chain jumps although IN_ORDER was agreed on",
     both(table(14, "<H", 2), in_order)),
    ("2.7.1", "the descriptor area is not aligned to 16 bytes", laid(desc=8)),
    ("2.7.1", "the driver area is not aligned to 2 bytes", laid(driver=1)),
    ("2.7.1", "the device area is not aligned to 4 bytes", laid(device=2)),
    ("2.7", "the queue size is no power of two", laid(size=-2)),
]  # fmt: skip

PACKED = [
    ("2.8.13", "a descriptor has reserved flags", poke("<H", "desc", 14, 0x80 | 1 | 64)),
    ("2.8.4", "a descriptor points outside guest memory", poke("<Q", "desc", 0, 1 << 50)),
    ("2.8.17", "a readable descriptor follows a writable one",
     both(poke("<H", "desc", 14, 0x80 | 3), poke("<H", "desc", 30, 0x80))),
    ("2.8.19", "an indirect descriptor is linked to others by NEXT",
     poke("<H", "desc", 32 + 14, 0x80 | 5)),
    ("2.8.7", "an indirect table has an impossible length", poke("<I", "desc", 32 + 8, 40)),
    ("2.8.19", "a descriptor in an indirect table has other flags than WRITE",
     table(14, "<H", 1)),
    ("2.8.1", "a slot's AVAIL bit is of another lap than the slots around it",
     poke("<H", "desc", 16 * 5 + 14, 0x80)),
    ("2.8.6", "a chain goes on into slots that are not available",
     poke("<H", "desc", 32 + 14, 0x80 | 1)),
    ("2.8.14", "reserved bits of the driver's event flags are set", poke("<H", "driver", 2, 4)),
    ("2.8.10", "the device's event flags are reserved", poke("<H", "device", 2, 3)),
    ("2.8.10", "the driver's event is for a slot that is not there",
     poke("<HH", "driver", 0, 8, 2)),
    ("2.8.7", "an indirect table is not in guest memory", poke("<Q", "desc", 32, 1 << 50)),
    ("2.8.17", "a chain loops", every_slot(0x80 | 1)),
    ("2.8.10", "the driver wants an event for one descriptor although RING_EVENT_IDX was not "
     "agreed on", both(poke("<H", "driver", 2, 2), without(EVENT_IDX))),
    ("2.8.19", "a descriptor is indirect although RING_INDIRECT_DESC was not agreed on",
     without(INDIRECT_DESC)),
    ("2.8.17", "a chain is longer than the queue size", one_longer),
    ("2.8.21.1", "the chains in slots 0 and 2 have the same id",
     both(poke("<H", "desc", 32 + 12, 0), in_order)),
    ("2.8.11", "the descriptor area is not aligned to 16 bytes", laid(desc=4)),
    ("2.8.11", "the driver area is not aligned to 4 bytes", laid(driver=2)),
    ("2.8.11", "the device area is not aligned to 4 bytes", laid(device=1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "section", "reason", "harm"),
    [pytest.param(kind, *case, id=f"{kind}: {case[1]}")
     for kind, cases in (("split", SPLIT), ("packed", PACKED)) for case in cases],
)  # fmt: skip
def test_a_breach_is_listed_with_its_section(
    kind: str, section: str, reason: str, harm: Harm
) -> None:
    builder = built(kind)
    assert watched(builder).validate() == ()
    harm(builder)
    found = [(breach.section, breach.reason) for breach in watched(builder).validate()]
    assert (section, reason) in found


def test_every_breach_that_is_judged_is_shown_above(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = set()

    def noted(*facts: Any, **more: Any) -> Breach:
        frame = sys._getframe(1)
        reached.add((frame.f_globals["__name__"], frame.f_lineno))
        return Breach(*facts, **more)

    for module in (rules, chaincheck):
        monkeypatch.setattr(module, "Breach", noted)
    for kind, cases in (("split", SPLIT), ("packed", PACKED)):
        for _, _, harm in cases:
            builder = built(kind)
            harm(builder)
            watched(builder).validate()
    assert reached == {
        (module.__name__, node.lineno)
        for module in (rules, chaincheck)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Breach"
    }


def test_chains_in_order_may_share_a_used_entry() -> None:
    builder = RingBuilder("split", 8, features=["IN_ORDER", "VERSION_1"])
    heads = [builder.publish([b"x"]) for _ in range(3)]
    struct.pack_into("<HI", builder.memory, builder.layout.device + 2, 2, heads[1])
    ring = builder.ring()
    assert ring.in_flight().ids == ring.in_flight().sure == (heads[2],)
    assert ring.validate() == ()


def test_all_breaches_are_listed() -> None:
    builder = built("split")
    poke("<H", "desc", 12, 1 | 64)(builder)
    poke("<Q", "desc", 16, 1 << 50)(builder)
    table(12, "<H", 3)(builder)
    sections = [breach.section for breach in builder.ring().validate()]
    assert sections == ["2.7.5", "2.7.5", "2.7.4.2"]


def test_a_breach_says_where_and_what() -> None:
    builder = built("split")
    poke("<H", "desc", 14, 8)(builder)
    (breach,) = builder.ring().validate()
    assert (breach.place, breach.index, breach.found) == (builder.layout.desc, 0, 8)
    assert str(breach) == (
        "virtio 1.2, 2.7.5: a chain goes on with a descriptor that is not there (index 0) "
        "at guest address 0x1000, found 8, expected below 8"
    )
