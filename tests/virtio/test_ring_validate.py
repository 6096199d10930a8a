"""Each breach of virtio 1.2 is listed with its section, and nothing else is."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from pyvirt.virtio.builder import RingBuilder
from pyvirt.virtio.layout import RingLayout
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.ring import Ring

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


SPLIT = [
    ("2.7.5", "a descriptor has reserved flags", poke("<H", "desc", 12, 1 | 64)),
    ("2.7.5", "a descriptor is empty", poke("<I", "desc", 8, 0)),
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
    ("2.7.6", "the avail ring names a descriptor that is not there", poke("<H", "driver", 4, 8)),
    ("2.7.6", "more chains are in flight than the queue has entries",
     poke("<H", "driver", 2, 900)),
    ("2.7.7.1", "the driver sets flags although RING_EVENT_IDX was agreed on",
     poke("<H", "driver", 0, 1)),
    ("2.7.10", "the device sets flags although RING_EVENT_IDX was agreed on",
     poke("<H", "device", 0, 1)),
    ("2.7.8", "the used ring names a descriptor that is not there",
     poke("<HII", "device", 2, 1, 8, 0)),
    ("2.7.8", "the device used a chain that was not in flight",
     poke("<HII", "device", 2, 1, 5, 0)),
    ("2.7.13", "chains 0 and 1 share a descriptor", poke("<H", "driver", 6, 1)),
]  # fmt: skip

PACKED = [
    ("2.8.13", "a descriptor has reserved flags", poke("<H", "desc", 14, 0x80 | 1 | 64)),
    ("2.8.4", "a descriptor is empty", poke("<I", "desc", 8, 0)),
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


def test_all_breaches_are_listed() -> None:
    builder = built("split")
    poke("<H", "desc", 12, 1 | 64)(builder)
    poke("<I", "desc", 24, 0)(builder)
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


@pytest.mark.parametrize(
    ("layout", "section", "reason"),
    [
        pytest.param(RingLayout("split", 4, 8, 128, 256), "2.7.1",
                     "the descriptor area is not aligned to 16 bytes", id="descriptors"),
        pytest.param(RingLayout("split", 4, 0, 129, 256), "2.7.1",
                     "the driver area is not aligned to 2 bytes", id="avail"),
        pytest.param(RingLayout("split", 4, 0, 128, 258), "2.7.1",
                     "the device area is not aligned to 4 bytes", id="used"),
        pytest.param(RingLayout("packed", 4, 0, 130, 256), "2.8.11",
                     "the driver area is not aligned to 4 bytes", id="driver-events"),
        pytest.param(RingLayout("split", 6, 0, 128, 256), "2.7",
                     "the queue size is no power of two", id="size"),
    ],
)  # fmt: skip
def test_where_a_ring_lies_is_judged(layout: RingLayout, section: str, reason: str) -> None:
    (breach,) = Ring(GuestMemory(bytes(512)), layout).validate()
    assert (breach.section, breach.reason) == (section, reason)


def test_indirect_tables_must_be_agreed_on() -> None:
    builder = built("split")
    layout = RingLayout.at(builder.layout.desc, "split", 8, ["RING_EVENT_IDX", "VERSION_1"])
    (breach,) = Ring(builder.memory, layout).validate()
    assert breach.section == "2.7.5.3.1"
    assert "RING_INDIRECT_DESC was not agreed on" in breach.reason


def test_a_chain_longer_than_the_queue_is_a_breach() -> None:
    builder = RingBuilder("split", 4)
    builder.publish([b"x"] * 5, indirect=True)
    (breach,) = builder.ring().validate()
    assert (breach.section, breach.found, breach.expected) == ("2.7.5.3.1", 5, "at most 4")
