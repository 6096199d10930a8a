"""Tables of qcow2, generated and damaged, against the slow reference."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_reference import (
    COPIED,
    MASK,
    PACKED,
    Broken,
    Check,
    Disk,
    One,
    extents,
    map_json,
    refcount,
)

from pyvirt.errors import BudgetError, ImageError, PolicyError
from pyvirt.image import Budget, BytesSource, Image
from pyvirt.image.qcow2.layer import Qcow2Layer


def times(examples: int) -> settings:
    """Images are large for what hypothesis expects."""
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck)
    )



def header(
    size: int, *, version: int = 3, bits: int = 9, l1_size: int = 1, l1: int = 0, features: int = 0,
    order: int = 4, crypt: int = 0, table: int = 0, table_clusters: int = 1,
) -> bytes:  # fmt: skip
    fixed = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, bits, size, crypt, l1_size,
                        l1, table, table_clusters, 0, 0)  # fmt: skip
    if version == 2:
        return fixed
    return fixed + struct.pack(">QQQII", features, 0, 0, order, 104)


@st.composite
def images(draw: Any, damaged: bool) -> bytes:
    """A small image whose tables are drawn: mostly sane, or with anything in them."""
    extended = draw(st.booleans())
    bits = 14 if extended else draw(st.sampled_from([9, 10, 12]))
    version = 3 if extended else draw(st.sampled_from([2, 3, 3]))
    order = 4 if version == 2 else draw(st.integers(0, 6))
    cluster, entry = 1 << bits, 16 if extended else 8
    tables = draw(st.integers(1, 3))
    span = cluster * (cluster // entry)
    size = draw(st.integers((tables - 1) * span + 1, tables * span))
    clusters = draw(st.integers(8, 24))
    crypt = draw(st.sampled_from([0, 0, 0, 1]))
    image = bytearray(clusters * cluster - draw(st.sampled_from([0, 0, 1, 512])))
    # Clusters 0 to 5: header, refcount table, one block, L1, two L2 tables; then data.
    head = header(size, version=version, bits=bits, l1_size=tables, l1=3 * cluster, order=order,
                  features=16 if extended else 0, crypt=crypt, table=cluster)  # fmt: skip
    image[: len(head)] = head
    struct.pack_into(">Q", image, cluster, 2 * cluster)
    place = st.integers(4, clusters - 1).map(lambda n: n * cluster)
    l1_entry = st.one_of(st.just(0), st.sampled_from([4, 5]).map(lambda n: n * cluster | COPIED))
    zero = 0 if version == 2 or extended else 1
    l2_entry = st.one_of(
        st.just(0), place.map(lambda p: p | COPIED), place, place.map(lambda p: p | zero),
        st.just(zero), st.integers(0, PACKED - 1).map(lambda p: PACKED | p & 0x40000000000FFFFF),
    )  # fmt: skip
    anything = st.integers(0, (1 << 64) - 1)
    if damaged:
        l1_entry, l2_entry = st.one_of(l1_entry, anything), st.one_of(l2_entry, anything)
    for index in range(tables):
        struct.pack_into(">Q", image, 3 * cluster + 8 * index, draw(l1_entry))
    for table in (4, 5):
        for _ in range(draw(st.integers(0, 12))):
            at = table * cluster + draw(st.integers(0, cluster // entry - 1)) * entry
            if at + entry > len(image):
                continue
            value = draw(l2_entry)
            struct.pack_into(">Q", image, at, value)
            if extended and not value & PACKED:
                stored = draw(st.integers(0, (1 << 32) - 1)) if value & MASK else 0
                nil = draw(st.integers(0, (1 << 32) - 1)) & ~stored
                struct.pack_into(">Q", image, at + 8, nil << 32 | stored)
    counts = draw(st.lists(st.integers(0, 255), min_size=8, max_size=48))
    image[2 * cluster : 2 * cluster + len(counts)] = bytes(counts)
    if damaged and draw(st.booleans()):
        struct.pack_into(">Q", image, cluster + 8, draw(anything))
    return bytes(image)


def found(image: bytes) -> list[One]:
    with Image(BytesSource(image), "qcow2") as opened:
        return [
            One(e.start, e.length, e.host, e.stored, e.depth, e.file, int(e.flags))
            for e in opened.layer.extents()
        ]


@given(images(damaged=False))
@times(60)
def test_extents_agree_with_the_reference(image: bytes) -> None:
    try:
        expected = extents(image)
    except Broken:
        with pytest.raises(ImageError):
            found(image)
        return
    assert found(image) == expected
    with Image(BytesSource(image), "qcow2") as opened:
        assert opened.layer.extents().json() == map_json(expected)


@given(images(damaged=True))
@times(60)
def test_damaged_tables_are_refused_where_the_reference_refuses_them(image: bytes) -> None:
    try:
        expected = extents(image)
    except Broken:
        with pytest.raises(ImageError):
            found(image)
    else:
        assert found(image) == expected


@given(images(damaged=True))
@times(100)
def test_check_agrees_with_the_reference(image: bytes) -> None:
    with Image(BytesSource(image), "qcow2") as opened:
        result = opened.check()
    got = (
        result.corruptions, result.leaks, result.allocated_clusters, result.fragmented_clusters,
        result.compressed_clusters, result.image_end_offset,
    )  # fmt: skip
    disk = Disk(image)
    entries = [disk.word(disk.l1_offset + 8 * index) for index in range(disk.l1_size)]
    shared = [(entry & MASK) >> disk.cluster_bits for entry in entries if entry]
    if len(set(shared)) == len(shared):  # A table that is shared is read once.
        assert got == tuple(Check(image).run())


@pytest.mark.parametrize("order", range(7))
def test_copied_flags_of_clusters_beyond_the_file_are_checked(order: int) -> None:
    """A refcount block goes on where the file ends; QEMU looks there before it complains."""
    cluster, bits = 512, 1 << order
    image = bytearray(5 * cluster)
    image[:104] = header(512, l1=3 * cluster, order=order, table=cluster)
    struct.pack_into(">Q", image, cluster, 2 * cluster)
    struct.pack_into(">Q", image, 3 * cluster, 4 * cluster)
    struct.pack_into(">Q", image, 4 * cluster, 25 * cluster)
    block = 1 << 25 * bits
    image[2 * cluster : 3 * cluster] = (
        block.to_bytes(cluster, "little") if bits < 8
        else b"".join((n == 25).to_bytes(bits // 8, "big") for n in range(cluster * 8 // bits))
    )  # fmt: skip
    with Image(BytesSource(bytes(image)), "qcow2") as opened:
        findings = opened.check().findings
    assert "L2 table at 2048: wrong COPIED flag, found 0x3200" in map(str, findings)
    errors, *_ = Check(bytes(image)).run()
    assert errors == len(findings)


@given(images(damaged=True), st.data())
@times(100)
def test_whatever_is_damaged_or_cut_is_an_error_of_ours(image: bytes, data: Any) -> None:
    broken = bytearray(image)
    for _ in range(data.draw(st.integers(0, 4))):
        broken[data.draw(st.integers(0, 107))] = data.draw(st.integers(0, 255))
    cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    try:
        with Image(BytesSource(cut), "qcow2", budget=Budget(memory=1 << 20)) as opened:
            opened.info  # noqa: B018
            opened.extents(chain=True).json()
            opened.check()
            opened.statistics()
    except (ImageError, BudgetError, PolicyError):
        return  # Anything else fails the test.


@pytest.mark.parametrize("order", range(7))
def test_refcounts_of_every_width(order: int) -> None:
    """One data cluster whose refcount is 1, one that is 0 and leaks nothing."""
    cluster, bits = 512, 1 << order
    image = bytearray(8 * cluster)
    image[:104] = header(512, l1=3 * cluster, order=order, table=cluster)
    struct.pack_into(">Q", image, cluster, 2 * cluster)
    struct.pack_into(">Q", image, 3 * cluster, 4 * cluster | COPIED)
    struct.pack_into(">Q", image, 4 * cluster, 5 * cluster | COPIED)
    block = 0
    for index in range(6):
        block |= 1 << index * bits
        if bits >= 8:
            image[2 * cluster + (index + 1) * bits // 8 - 1] = 1
    if bits < 8:
        image[2 * cluster : 2 * cluster + 8] = block.to_bytes(8, "little")
    assert [refcount(Disk(bytes(image)), n) for n in range(8)] == [1] * 6 + [0, 0]
    with Image(BytesSource(bytes(image)), "qcow2") as opened:
        result = opened.check()
    assert (result.corruptions, result.leaks, result.findings_lost) == (0, 0, 0)
    assert result.exit_code == 0
    assert result.ok
    image[5 * cluster + 100 : 5 * cluster + 101] = b"x"  # data is nobody's business
    struct.pack_into(">Q", image, 4 * cluster, 0)
    with Image(BytesSource(bytes(image)), "qcow2") as opened:
        result = opened.check()
    assert (result.corruptions, result.leaks, result.exit_code) == (0, 1, 3)
    (leak,) = result.findings
    assert (leak.fault, leak.offset, leak.found, leak.expected) == ("leak", 5 * cluster, 1, 0)
    assert str(leak) == f"cluster at {5 * cluster}: refcount 1, references 0"


def small(**l2: int) -> bytearray:
    """Clusters: 0 header, 1 refcount table, 2 block, 3 L1, 4 L2, 5 to 7 data; refcounts fit."""
    image = bytearray(8 * 512)
    image[:104] = header(64 * 512, l1=3 * 512, table=512)
    struct.pack_into(">Q", image, 512, 1024)
    struct.pack_into(">Q", image, 3 * 512, 4 * 512 | COPIED)
    for index in range(5):
        struct.pack_into(">H", image, 1024 + 2 * index, 1)
    return image


@pytest.mark.parametrize(
    ("entry", "counts", "fault", "table"),
    [
        pytest.param(5 * 512 | COPIED | 2, {5: 1}, "reserved bits", "L2 table", id="reserved"),
        pytest.param(5 * 512, {5: 1}, "wrong COPIED flag", "L2 table", id="copied-missing"),
        pytest.param(5 * 512 | COPIED, {5: 2}, "wrong COPIED flag", "L2 table", id="copied-wrong"),
        pytest.param(1 << 40 | COPIED, {}, "outside the file", "L2 table", id="outside"),
        pytest.param(2 * 512 | COPIED, {}, "overlap", "refcount table", id="in-the-refcounts"),
        pytest.param(5 * 512 | COPIED, {}, "refcount too low", "refcount block", id="too-low"),
        pytest.param(
            PACKED | COPIED | 5 * 512, {5: 1}, "wrong COPIED flag", "L2 table", id="packed"
        ),
    ],
)
def test_findings_say_what_and_where(
    entry: int, counts: dict[int, int], fault: str, table: str
) -> None:
    image = small()
    struct.pack_into(">Q", image, 4 * 512 + 8 * 7, entry)
    for cluster, count in counts.items():
        struct.pack_into(">H", image, 1024 + 2 * cluster, count)
    with Image(BytesSource(bytes(image)), "qcow2") as opened:
        result = opened.check()
    findings = {one.fault: one for one in result.findings}
    assert fault in findings
    if fault == "refcount too low":
        assert findings[fault].offset == 5 * 512
    elif fault != "overlap":
        assert (findings[fault].offset, findings[fault].table) == (4 * 512 + 56, table)
    else:
        assert (findings[fault].found, findings[fault].table) == (1024, table)
        assert result.overlaps == 1
    assert result.exit_code == (3 if counts == {5: 2} and not result.corruptions else 2)


# -- Images of somebody who means harm ------------------------------------------------------------


class Sparse:
    """A huge file of zeros with a little written; counts what is read."""

    def __init__(self, size: int, parts: dict[int, bytes]) -> None:
        self.size, self.parts, self.read = size, parts, 0
        self.name = "sparse"

    def pread(self, size: int, offset: int, /) -> bytes:
        size = max(0, min(size, self.size - offset))
        self.read += size
        data = bytearray(size)
        for at, part in self.parts.items():
            first, last = max(at, offset), min(at + len(part), offset + size)
            if first < last:
                data[first - offset : last - offset] = part[first - at : last - at]
        return bytes(data)


def test_one_table_named_by_every_l1_entry_is_no_endless_work() -> None:
    cluster = 1 << 16
    entries = (32 << 20) // 8
    l1 = struct.pack(">Q", 2 * cluster) * entries
    table = struct.pack(">Q", 5 * cluster) + bytes(cluster - 8)
    head = header(entries << 29, bits=16, l1_size=entries, l1=4 << 20, table=cluster)
    source = Sparse(40 << 20, {0: head, 2 * cluster: table, 4 << 20: l1})
    with Image(source, "qcow2") as image:
        with pytest.raises(ImageError) as caught:
            image.extents()
        assert caught.value.reason == "asks for more work than its size explains"
        assert source.read < 400 << 20
        image.check()
        assert source.read < 600 << 20


def test_an_empty_table_named_by_every_l1_entry_is_read_once() -> None:
    cluster, entries = 1 << 16, (32 << 20) // 8
    l1 = struct.pack(">Q", 2 * cluster) * entries
    head = header(entries << 29, bits=16, l1_size=entries, l1=4 << 20, table=cluster)
    source = Sparse(40 << 20, {0: head, 4 << 20: l1})
    with Image(source, "qcow2") as image:
        (one,) = image.extents()
        assert (one.start, one.length, one.zero) == (0, entries << 29, True)
    assert source.read < 40 << 20


def test_tables_that_point_at_themselves() -> None:
    image = small()
    struct.pack_into(">Q", image, 3 * 512, 3 * 512 | COPIED)
    struct.pack_into(">Q", image, 512, 512)
    with Image(BytesSource(bytes(image)), "qcow2") as opened:
        assert len(opened.extents()) == 2
        result = opened.check()
    assert result.exit_code == 2
    assert result.overlaps > 0


def test_a_check_of_a_file_that_is_too_large_for_the_budget_is_refused() -> None:
    source = Sparse(1 << 50, {0: header(512, l1=3 * 512, table=512)})
    with Image(source, "qcow2", budget=Budget(memory=1 << 20)) as image, pytest.raises(BudgetError):
        image.check()


def test_extents_beyond_the_budget_are_refused() -> None:
    image = small()
    for index in range(0, 64, 2):
        struct.pack_into(">Q", image, 4 * 512 + 8 * index, 5 * 512)
    with (
        Image(BytesSource(bytes(image)), "qcow2", budget=Budget(memory=29 * 10)) as opened,
        pytest.raises(BudgetError),
    ):
        opened.extents()


def test_a_cut_image_is_truncated_wherever_it_is_cut() -> None:
    image = small()
    struct.pack_into(">Q", image, 4 * 512 + 8, 5 * 512 | COPIED)
    for cut in range(0, 5 * 512, 13):
        with pytest.raises(ImageError), Image(BytesSource(bytes(image[:cut])), "qcow2") as opened:
            opened.extents()


def test_what_a_source_raises_comes_through() -> None:
    class Failing(BytesSource):
        def pread(self, size: int, offset: int, /) -> bytes:
            if offset == 4 * 512:
                raise KeyError("no such cluster")
            return super().pread(size, offset)

    with Image(Failing(bytes(small())), "qcow2") as opened:
        with pytest.raises(KeyError):
            opened.extents()
        assert isinstance(opened.layer, Qcow2Layer)
