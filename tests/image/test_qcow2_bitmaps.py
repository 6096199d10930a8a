"""Persistent bitmaps put together by C, and what they mark."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt._native.columns import Columns
from pyvirt._native.qcow2 import dirty
from pyvirt.errors import BudgetError, ImageError
from pyvirt.image import BytesSource, Image
from pyvirt.image.budget import Budget

CLUSTER = 512
TABLE, FIRST, SECOND = 3 * CLUSTER, 4 * CLUSTER, 5 * CLUSTER


def image(*table: int, size: int = 1 << 22, entries: int | None = None) -> bytes:
    """An image of `size` bytes with a bitmap "b" of 512 bytes a bit, and two clusters for it."""
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 9, size, 0, size // (CLUSTER * 64) + 1,
        6 * CLUSTER, CLUSTER, 1, 0, 0, 0, 0, 1, 4, 104,
    )  # fmt: skip
    extension = struct.pack(">IIIIQQ", 0x23852875, 24, 1, 0, 32, 2 * CLUSTER)
    directory = struct.pack(
        ">QIIBBHI", TABLE, len(table) if entries is None else entries, 0, 1, 9, 1, 0
    )
    file = bytearray((header + extension).ljust(8 * CLUSTER, b"\0"))
    file[2 * CLUSTER : 2 * CLUSTER + 25] = directory + b"b"
    file[TABLE : TABLE + 8 * len(table)] = struct.pack(f">{len(table)}Q", *table)
    file[FIRST : FIRST + 2] = b"\x06\x80"
    file[SECOND] = 1
    return bytes(file)


def ranges(content: bytes) -> list[tuple[int, int]]:
    with Image(BytesSource(content), "qcow2") as opened:
        return [(one.start, one.length) for one in opened.dirty("b")]


def runs(bits: bytes, unit: int, end: int) -> list[tuple[int, int]]:
    """Bit by bit, as nobody would do it in earnest."""
    found: list[tuple[int, int]] = []
    for number in range(8 * len(bits)):
        start, stop = number * unit, min((number + 1) * unit, end)
        if not bits[number // 8] >> number % 8 & 1 or start >= end:
            continue
        if found and sum(found[-1]) == start:
            found[-1] = (found[-1][0], stop - found[-1][0])
        else:
            found.append((start, stop - start))
    return found


some_bits = st.lists(
    st.one_of(st.binary(max_size=9), st.integers(1, 20).map(bytes),
              st.integers(1, 20).map(lambda n: b"\xff" * n)), max_size=6,
).map(b"".join)  # fmt: skip


@given(some_bits, st.integers(9, 31), st.integers(0, 1 << 42))
def test_runs_of_bits(bits: bytes, granularity: int, end: int) -> None:
    columns = Columns(4 * len(bits) + 1)
    dirty(bits, granularity, end, columns)
    start, length, *_ = columns.views()
    assert list(zip(start, length, strict=True)) == runs(bits, 1 << granularity, end)


def test_clusters_of_a_bitmap_are_stored_or_all_alike() -> None:
    assert ranges(image(FIRST, 1, size=1 << 22)) == [(512, 1024), (15 * 512, 512),
                                                     (1 << 21, 1 << 21)]  # fmt: skip
    assert ranges(image(0, SECOND, size=1 << 22)) == [(1 << 21, 512)]
    assert ranges(image(1, 1, size=(1 << 22) - 1024)) == [(0, (1 << 22) - 1024)]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(FIRST | 1, id="all-ones-and-stored"),
        pytest.param(FIRST | 2, id="reserved-low"),
        pytest.param(FIRST | 1 << 63, id="reserved-high"),
    ],
)
def test_impossible_entries_are_told(entry: int) -> None:
    with pytest.raises(ImageError) as caught:
        ranges(image(0, entry))
    error = caught.value
    assert (error.table, error.offset, error.found) == ("bitmap table", TABLE + 8, entry)


def test_a_bitmap_behind_the_end_of_the_file_is_truncated() -> None:
    with pytest.raises(ImageError, match="truncated") as caught:
        ranges(image(0, 1 << 40))
    assert (caught.value.table, caught.value.offset) == ("bitmap", 1 << 40)


def test_a_bitmap_that_is_too_short_for_the_disk() -> None:
    with pytest.raises(ImageError, match="shorter than the disk") as caught:
        ranges(image(1))
    assert (caught.value.found, caught.value.expected) == (1, 2)


def test_a_bitmap_costs_no_more_than_the_budget(tmp_path: Path) -> None:
    source = BytesSource(image(0, 0))
    with (
        Image(source, "qcow2", budget=Budget(memory=1000)) as opened,
        pytest.raises(BudgetError, match="bitmap b"),
    ):
        opened.dirty("b")
    with pytest.raises(BudgetError, match="dirty ranges"):
        dirty(b"\x55", 9, 1 << 20, Columns(3))


def test_images_give_the_bits_and_other_formats_have_none() -> None:
    with Image(BytesSource(image(FIRST, 0)), "qcow2") as opened:
        assert [one.name for one in opened.info.bitmaps] == ["b"]
        bits = opened.bitmap("b")
    assert (len(bits), bits[:2], not any(bits[2:])) == (1024, b"\x06\x80", True)
    with Image(BytesSource(bytes(1024)), "raw") as opened:
        for act in (opened.bitmap, opened.dirty):
            with pytest.raises(ImageError, match="has no bitmaps in format raw"):
                act("b")
