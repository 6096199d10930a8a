"""Columns of extents: laid over each other, cut, marked, subtracted, written as JSON."""

from __future__ import annotations

import subprocess
import sys
from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_reference import ALLOCATED, COMPRESSED, OFFSET, PRESENT, ZERO, One, lay, map_json, units

from pyvirt._native.columns import Columns
from pyvirt.errors import BudgetError
from pyvirt.image import Budget, Extent, Extents, Flag
from pyvirt.image import merge as merging

KINDS = [0, OFFSET, PRESENT | ZERO, PRESENT | ZERO | OFFSET, PRESENT | ALLOCATED | OFFSET,
         PRESENT | ALLOCATED | COMPRESSED]  # fmt: skip


@st.composite
def layers(draw: st.DrawFn) -> list[One]:
    """Extents of a layer: neighbours that could be one are."""
    found: list[One] = []
    at = 0
    for _ in range(draw(st.integers(0, 12))):
        length = 512 * draw(st.integers(1, 6))
        flags = draw(st.sampled_from(KINDS))
        has = flags & (OFFSET | COMPRESSED)
        host = 512 * draw(st.integers(1, 30)) if has else 0
        stored = draw(st.integers(1, 999)) if flags & COMPRESSED else 0
        one = One(at, length, host, stored, 0, 0, flags)
        at += length
        last = found[-1] if found else None
        goes_on = last and last.flags == flags and not flags & COMPRESSED
        if goes_on and (not flags & OFFSET or last.host + last.length == host):
            continue_ = last._replace(length=last.length + length)
            found[-1] = continue_
        else:
            found.append(one)
    return found


def columns_of(layer: list[One]) -> Extents:
    columns = Columns(max(1, len(layer)))
    for one in layer:
        columns.add(one.start, one.length, one.host, one.flags, one.depth, one.file, one.stored)
    return Extents(columns)


def rows(extents: Extents) -> list[One]:
    return [
        One(e.start, e.length, e.host, e.stored, e.depth, e.file, int(e.flags)) for e in extents
    ]


@given(layers(), layers())
@settings(max_examples=300, deadline=None)
def test_laid_over_each_other_as_the_reference_does(top: list[One], below: list[One]) -> None:
    end = below[-1].start + below[-1].length if below else 0
    merged = merging.lay(columns_of(top), columns_of(below), end, Budget())
    assert units(rows(merged)) == lay(top, below)
    assert all(a.end == b.start for a, b in pairwise(merged))


@given(layers())
@settings(max_examples=200, deadline=None)
def test_json_is_that_of_the_reference(layer: list[One]) -> None:
    if layer:
        assert columns_of(layer).json() == map_json(layer)


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=3, max_size=3))
def test_json_of_any_number(numbers: list[int]) -> None:
    start, length, host = numbers
    layer = [One(start, max(length, 1), host, 0, 65535, 0, PRESENT | ALLOCATED | OFFSET)]
    assert columns_of(layer).json() == map_json(layer)


@pytest.mark.parametrize("power", range(20))
@pytest.mark.parametrize("less", [0, 1])
def test_json_around_powers_of_ten(power: int, less: int) -> None:
    layer = [One(10**power - less, 1, 10**power - less, 0, 0, 0, PRESENT | ALLOCATED | OFFSET)]
    assert columns_of(layer).json() == map_json(layer)


def test_json_of_nothing_is_what_qemu_prints_for_an_empty_image() -> None:
    assert Extents.of(()).json().startswith('[{ "start": 0, "length": 0, "depth": 0')


def test_json_of_newer_qemus_tells_what_is_compressed() -> None:
    layer = [One(0, 512, 512, 100, 0, 0, PRESENT | ALLOCATED | COMPRESSED)]
    assert '"data": true, "compressed": true}' in columns_of(layer).json(compressed=True)


@given(layers(), st.lists(st.integers(0, 40), max_size=8, unique=True).map(sorted))
@settings(max_examples=300, deadline=None)
def test_holes_are_zeros(layer: list[One], edges: list[int]) -> None:
    pairs = array("Q", (512 * edge for edge in edges[: len(edges) // 2 * 2]))
    solid = {n for a, b in zip(pairs[::2], pairs[1::2], strict=True) for n in range(a, b, 512)}
    marked = Extents(columns_of(layer).columns.mark([pairs], 0, 1 << 20))
    expected = units(layer)
    for place, one in expected.items():
        plain = one.flags & (ALLOCATED | OFFSET | COMPRESSED | ZERO) == ALLOCATED | OFFSET
        if plain and one.host not in solid:
            expected[place] = one._replace(flags=one.flags | ZERO)
    assert units(rows(marked)) == expected


@given(layers(), layers())
@settings(max_examples=300, deadline=None)
def test_the_difference_is_where_metadata_differ(old: list[One], new: list[One]) -> None:
    columns = Columns(64)
    columns.subtract(columns_of(old).columns, columns_of(new).columns)
    a, b = units(old), units(new)
    changed = {place for place, one in b.items() if _content(a.get(place)) != _content(one)}
    assert set(units(rows(Extents(columns)))) == changed


def _content(one: One | None) -> object:
    if one is None or one.flags & ZERO:
        return "zeros"
    if not one.flags & ALLOCATED:
        return "nothing"
    return one.flags, one.host


@given(layers(), st.sampled_from([512, 1024, 4096]))
@settings(max_examples=200, deadline=None)
def test_sums(layer: list[One], block: int) -> None:
    sums = columns_of(layer).columns.sums(block)
    data = {p for p, one in units(layer).items() if one.flags & ALLOCATED}
    assert sums["allocated"] == 512 * len(data)
    assert sums["touched"] == len({place // block for place in data})
    assert sums["stored"] == sum(one.stored for one in layer)
    assert sums["zero"] == sum(one.length for one in layer if one.flags & ZERO)
    assert sums["absent"] == sum(one.length for one in layer if not one.flags & PRESENT)


DATA = Flag.ALLOCATED | Flag.PRESENT | Flag.OFFSET
TWO = [Extent(0, 512, 4096, DATA), Extent(512, 1024, 0, Flag.ZERO | Flag.PRESENT)]


def test_columns_are_packed_buffers() -> None:
    found = Extents.of(TWO)
    formats = [(view.format, view.tolist()) for view in found.views()]
    assert formats == [
        ("Q", [0, 512]), ("Q", [512, 1024]), ("Q", [4096, 0]), ("I", [0, 0]), ("H", [0, 0]),
        ("H", [0, 0]), ("B", [25, 10]),
    ]  # fmt: skip


def test_extents_are_a_sequence() -> None:
    found = Extents.of(TWO)
    assert list(found) == TWO
    assert (found[0], found[-1], len(found)) == (TWO[0], TWO[1], 2)
    assert list(found[1:]) == TWO[1:]
    assert found[1:].json() == Extents.of(TWO[1:]).json()
    assert found == Extents.of(TWO)
    assert found != found[:1]
    assert found[0].allocated
    assert found[1].zero
    assert "2" in repr(found)
    with pytest.raises(IndexError):
        found[2]
    with pytest.raises(ValueError, match="step"):
        found[::2]


def test_extents_outlive_what_made_them() -> None:
    view = Extents.of(TWO).start
    assert view.tolist() == [0, 512]


def test_cut_to_a_range() -> None:
    assert list(merging.clip(Extents.of(TWO), 256, 600)) == [
        Extent(256, 256, 4096 + 256, DATA),
        Extent(512, 88, 0, Flag.ZERO | Flag.PRESENT),
    ]


def test_no_room_is_a_budget_error() -> None:
    columns = Columns(1)
    columns.add(0, 512, 0, DATA)
    with pytest.raises(BudgetError):
        columns.add(512, 512, 0, 0)
    columns.add(512, 512, 512, DATA)  # Joined with the first, which takes no room.
    assert list(Extents(columns)) == [Extent(0, 1024, 0, DATA)]


def test_numpy_takes_the_columns_without_a_copy() -> None:
    numpy = pytest.importorskip("numpy")
    found = Extents.of(TWO)
    taken = found.numpy()
    assert taken["start"].tolist() == [0, 512]
    assert numpy.shares_memory(taken["start"], numpy.asarray(found.start))


def test_polars_and_pandas_are_not_loaded_until_they_are_asked_for() -> None:
    code = "import sys, pyvirt.image.image; print({'numpy', 'pandas', 'polars'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
