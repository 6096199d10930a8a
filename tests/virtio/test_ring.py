"""Rings that a builder made are read back exactly; damaged ones end in a value or `RingError`."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import ClosedError, RingError, SpecError, UnsupportedError
from pyvirt.virtio.builder import RingBuilder
from pyvirt.virtio.layout import RingLayout
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.ring import Ring, Sampler
from pyvirt.virtio.rings import Rings
from pyvirt.virtio.state import Descriptor

KINDS = pytest.mark.parametrize("kind", ["split", "packed"])


def shape(descs: object) -> list[tuple[int, int, bool]]:
    return [(d.address, d.length, d.writable) for d in descs]  # type: ignore[attr-defined]


def step(builder: RingBuilder, pick: random.Random, *, in_order: bool) -> None:
    """Publish a chain or complete one."""
    flight = builder.in_flight
    if flight and (pick.random() < 0.45 or builder.free < 4):
        id = flight[0] if in_order else pick.choice(flight)
        room = sum(desc.length for desc in builder.buffers(id) if desc.writable)
        builder.complete(id, bytes(pick.randrange(room + 1)))
        return
    reads, writes = pick.randrange(3), pick.randrange(3)
    indirect = pick.random() < 0.3
    if reads + writes:
        builder.publish([b"x" * pick.randrange(1, 40)] * reads, [16] * writes, indirect=indirect)


@KINDS
@given(seed=st.integers(0, 1 << 32), size=st.sampled_from([4, 8, 16]))
@settings(max_examples=40)
def test_a_ring_that_was_built_is_read_back(kind: str, seed: int, size: int) -> None:
    pick = random.Random(seed)
    builder = RingBuilder(kind, size, start=pick.choice([0, 65530]) if kind == "split" else 0)
    ring = builder.ring()
    ring.know(0, 1)
    for _ in range(60):
        step(builder, pick, in_order=True)
        state, flight = ring.snapshot(), ring.in_flight()
        assert state.consistent
        assert state.avail_idx == builder.avail_idx
        if not state.certain:
            continue
        assert state.used_idx == builder.used_idx
        assert ring.validate() == ()
        if flight.certain:
            assert flight.ids == builder.in_flight
        found = {chain.id: chain for chain in ring.chains()}
        if kind == "packed" or flight.certain:
            assert tuple(found) == builder.in_flight
            for id in builder.in_flight:
                assert shape(found[id]) == shape(builder.buffers(id))


@given(seed=st.integers(0, 1 << 32), size=st.sampled_from([4, 8, 16]))
@settings(max_examples=40)
def test_chains_in_flight_are_told_when_they_complete_in_any_order(seed: int, size: int) -> None:
    pick = random.Random(seed)
    builder = RingBuilder("split", size)
    ring = builder.ring()
    told = 0
    for _ in range(60):
        step(builder, pick, in_order=False)
        flight = ring.in_flight()
        assert flight.count == len(builder.in_flight)
        assert ring.validate() == ()
        if flight.certain:
            told += 1
            assert set(flight.ids) == set(builder.in_flight)
            for id in flight.ids:
                assert shape(ring.chain(id)) == shape(builder.buffers(id))
    assert told > 10


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=40)
def test_a_packed_ring_says_when_it_does_not_know(seed: int) -> None:
    pick = random.Random(seed)
    builder = RingBuilder("packed", 8)
    fresh, watched = builder.ring(), builder.ring()
    watched.know(0, 1)
    for _ in range(60):
        step(builder, pick, in_order=False)
        for ring in (fresh, watched):
            state = ring.snapshot()
            assert (state.avail_idx, state.consistent) == (builder.avail_idx, True)
            if state.certain:
                assert state.used_idx == builder.used_idx
            assert ring.validate() == ()
        if not builder.in_flight and watched.snapshot().certain:
            assert watched.in_flight().ids == ()


@KINDS
@given(seed=st.integers(0, 1 << 32), harm=st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8))  # fmt: skip
@settings(max_examples=80)
def test_a_damaged_ring_ends_in_a_value_or_its_error(
    kind: str, seed: int, harm: list[tuple[int, int]]
) -> None:
    pick = random.Random(seed)
    builder = RingBuilder(kind, 8, room=8192)
    for _ in range(pick.randrange(30)):
        step(builder, pick, in_order=False)
    first = builder.layout.desc
    for place, value in harm:
        builder.memory[first + place % (len(builder.memory) - first)] = value
    ring = builder.ring()
    ring.snapshot()
    ring.in_flight()
    ring.validate()
    for head in range(8):
        reading(lambda head=head: list(ring.chain(head)))
    reading(lambda: [list(chain) for chain in ring.chains()])
    chains, descs = bytearray(32 * 16), bytearray(16 * 64)
    count, used = ring.walk(chains, descs, 0, 8)
    assert count <= 16
    assert used <= 64


def reading(read: Callable[[], object]) -> None:
    with suppress(RingError):
        read()


def split_table(*descs: tuple[int, int, int, int], size: int = 4) -> Ring:
    """A ring whose descriptors are these; the first chain is available."""
    layout = RingLayout.at(0, "split", size)
    memory = bytearray(4096)
    struct.pack_into("<QIHH", memory, 4080, 0, 1, 1, 1)
    for slot, desc in enumerate(descs):
        struct.pack_into("<QIHH", memory, 16 * slot, *desc)
    struct.pack_into("<H", memory, layout.driver + 2, 1)
    return Ring(memory, layout, device="disk0", queue=3)


@pytest.mark.parametrize(
    ("ring", "reason", "place", "found"),
    [
        pytest.param(split_table((0, 1, 1, 0)), "a chain loops", 0, 4, id="to-itself"),
        pytest.param(split_table((0, 1, 1, 9)), "a descriptor is named that its table does not "
                     "have", 0, 9, id="past-the-table"),
        pytest.param(split_table((64, 32, 5, 1)), "a descriptor is indirect and has a next one",
                     0, 5, id="indirect-and-next"),
        pytest.param(split_table((64, 24, 4, 0)), "an indirect table has an impossible length",
                     64, 24, id="cut-table"),
        pytest.param(split_table((64, 0, 4, 0)), "an indirect table has an impossible length",
                     64, 0, id="empty-table"),
        pytest.param(split_table((16, 16, 4, 0), (0, 16, 4, 0)), "an indirect table holds another",
                     16, 4, id="table-in-table"),
        pytest.param(split_table((1 << 40, 16, 4, 0)), "the ring points outside guest memory",
                     1 << 40, 16, id="table-nowhere"),
        pytest.param(split_table((4080, 32, 4, 0)), "the ring points outside guest memory",
                     4096, 16, id="table-half-there"),
    ],
)  # fmt: skip
def test_a_broken_chain_says_where(ring: Ring, reason: str, place: int, found: int) -> None:
    with pytest.raises(RingError) as caught:
        ring.chain(0)
    error = caught.value
    assert (error.reason, error.device, error.queue) == (reason, "disk0", 3)
    assert (error.place, error.found) == (place, found)


def test_an_error_names_ring_place_and_limit() -> None:
    with pytest.raises(RingError) as caught:
        split_table((0, 1, 1, 9)).chain(0)
    assert str(caught.value) == (
        "disk0 queue 3: a descriptor is named that its table does not have "
        "at guest address 0x0, found 9, expected below 4"
    )


def test_a_ring_outside_memory_is_refused() -> None:
    with pytest.raises(RingError) as caught:
        Ring(bytes(64), RingLayout("split", 4, 0, 64, 128))
    assert (caught.value.place, caught.value.found) == (64, 12)
    assert caught.value.reason == "the ring points outside guest memory"


def test_a_head_that_is_not_there_is_refused() -> None:
    with pytest.raises(RingError) as caught:
        split_table().chain(4)
    assert (caught.value.index, caught.value.expected) == (4, "below 4")


def test_more_in_flight_than_entries_is_said() -> None:
    ring = split_table()
    ring.memory.door.read(0, 1)
    memory = bytearray(4096)
    struct.pack_into("<H", memory, ring.layout.driver + 2, 5)
    state = Ring(memory, ring.layout).snapshot()
    assert (state.in_flight, state.broken) == (5, True)
    assert repr(state) == "<RingState avail_idx 5, used_idx 0, 5 in flight, broken>"


@KINDS
def test_event_indexes_and_flags_are_read(kind: str) -> None:
    builder = RingBuilder(kind, 8)
    builder.events(3, 5)
    state = builder.ring().snapshot()
    assert (state.used_event, state.avail_event) == (3, 5)
    assert state.avail_flags == (2 if kind == "packed" else 0)


def test_entries_are_read() -> None:
    builder = RingBuilder("split", 4)
    ids = [builder.publish([b"a"]), builder.publish(writable=[8])]
    builder.complete(ids[1], b"1234")
    ring = builder.ring()
    assert ring.avail()[:2] == tuple(ids)
    assert (ring.used()[0].id, ring.used()[0].length) == (ids[1], 4)
    with pytest.raises(RingError, match="a packed ring has no avail ring"):
        RingBuilder("packed", 4).ring().avail()


def test_areas_may_lie_across_regions() -> None:
    builder = RingBuilder("split", 16)
    builder.publish([b"header"], [512], indirect=True)
    middle = builder.layout.desc + 24
    parts = {0: bytes(builder.memory[:middle]), middle: bytes(builder.memory[middle:])}
    ring = Ring(GuestMemory(parts), builder.layout)
    assert ring.snapshot() == builder.ring().snapshot()
    assert list(ring.chain(0)) == list(builder.ring().chain(0))


def test_many_rings_are_sampled_in_one_call() -> None:
    builders = [RingBuilder("split", 8, start=7), RingBuilder("packed", 8)]
    for builder in builders:
        builder.publish([b"x"])
    sampler = Sampler(builder.ring() for builder in builders)
    samples = bytearray(sampler.size)
    sampler.sample(samples)
    assert struct.unpack_from("<HHH", samples) == (8, 7, 1)
    assert struct.unpack_from("<H", samples, 8) == (1,)
    with pytest.raises(ValueError, match="8 bytes for each queue"):
        sampler.sample(bytearray(8))


@KINDS
def test_whole_rings_are_walked_in_one_call(kind: str) -> None:
    builder = RingBuilder(kind, 8)
    ids = [builder.publish([b"ab"], [10]), builder.publish([b"abc"] * 3, indirect=True)]
    ring = builder.ring()
    chains, descs = bytearray(32 * 8), bytearray(16 * 16)
    assert ring.walk(chains, descs, 0, 2) == (2, 5)
    first, second = struct.iter_unpack("<QQIHHII", chains[:64])
    assert first == (2, 10, 2, 2, ids[0], 0, 0)
    assert second == (9, 0, 3, 1, ids[1], 2, 0)
    assert struct.unpack_from("<QI", descs) == (builder.buffers(ids[0])[0].address, 2)


def test_memory_that_went_away_is_said_by_everything() -> None:
    builder = RingBuilder("split", 4)
    builder.publish([b"x"])
    ring = builder.ring()
    sampler = Sampler([ring])
    ring.memory.close()
    calls: list[Callable[[], object]] = [
        ring.snapshot, ring.in_flight, lambda: ring.chain(0), lambda: ring.validate(),
        lambda: sampler.sample(bytearray(8)),
        lambda: ring.walk(bytearray(32), bytearray(16), 0, 1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ClosedError):
            call()


def test_features_are_known_by_names() -> None:
    layout = RingLayout.at(0, "packed", 8, ["RING_EVENT_IDX", "VERSION_1"])
    assert layout.event_idx
    assert layout.names == ("RING_EVENT_IDX", "VERSION_1", "RING_PACKED")


@pytest.mark.parametrize(("field", "values"), [("kind", ("round", 8)), ("size", ("split", 40000))])
def test_a_layout_is_checked(field: str, values: tuple[str, int]) -> None:
    with pytest.raises(SpecError) as caught:
        RingLayout(*values, 0, 0, 0)
    assert caught.value.field == field


def test_reprs_say_what_a_person_wants_to_know() -> None:
    builder = RingBuilder("split", 8)
    builder.publish([b"ab"], [4])
    ring = builder.ring(device="disk0", queue=0, name="request0")
    assert repr(ring) == (
        "<Ring disk0 request0: split, 8 entries, avail_idx 1, used_idx 0, 1 in flight>"
    )
    assert repr(ring.snapshot()) == "<RingState avail_idx 1, used_idx 0, 1 in flight>"
    assert repr(ring.chain(0)) == "<Chain 0: 2 descriptors, 2 bytes to read, 4 to write>"
    assert str(Descriptor(4096, 16, 2)) == "0x1000+0x10w"
    assert repr(builder) == "<RingBuilder split, 8 entries, 1 in flight>"
    ring.memory.close()
    assert repr(ring) == "<Ring disk0 request0: split, 8 entries, closed>"


@KINDS
def test_rings_show_those_that_were_used(kind: str) -> None:
    used, idle = RingBuilder(kind, 8), RingBuilder(kind, 8)
    for _ in range(8):
        used.complete(used.publish([b"x"]))
    first = used.ring(device="disk0", queue=0, name="request0")
    others = [idle.ring(device="console", queue=queue) for queue in range(3)]
    refused = UnsupportedError("reading the rings of secret", "this VM")
    rings = Rings([first, *others], {"secret": refused})
    assert (len(rings), rings[0], rings.unreadable) == (4, first, {"secret": refused})
    assert not first.untouched
    assert repr(rings).splitlines() == [
        "<Rings: 4",
        "  " + repr(first)[6:-1],
        "  console: 3 never used",
        "  secret: reading the rings of secret is not available in this VM>",
    ]
    assert repr(Rings()) == "<Rings: 0>"
