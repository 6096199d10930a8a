"""Extents in numpy, pandas and polars: the same memory, which lives as long as they do."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from pyvirt.image import Extent, Extents, Flag
from pyvirt.image.extents import NAMES

numpy: Any = pytest.importorskip("numpy")

DATA = Flag.ALLOCATED | Flag.PRESENT | Flag.OFFSET
TYPES = ("uint64", "uint64", "uint64", "uint32", "uint16", "uint16", "uint8")


def scattered(count: int = 1000) -> Extents:
    """Extents with something in every column, also beyond 2^63."""
    packed = Flag.ALLOCATED | Flag.PRESENT | Flag.COMPRESSED
    return Extents.of(
        [
            Extent(n << 16, 1 << 16, (1 << 64) - 1 - n, packed, n % 7, n % 3, 1 + n)
            if n % 2 else Extent(n << 16, 1 << 16, n * 7919 << 16, DATA, depth=n % 5)
            for n in range(count)
        ]
    )  # fmt: skip


def address(column: Any) -> int:
    place: int = numpy.asarray(column).__array_interface__["data"][0]
    return place


def test_numpy_has_the_same_memory() -> None:
    extents = scattered()
    arrays = extents.numpy()
    assert tuple(arrays) == NAMES
    for name, type in zip(NAMES, TYPES, strict=True):
        assert arrays[name].dtype == type
        assert address(arrays[name]) == address(getattr(extents, name))
        assert arrays[name].tolist() == list(getattr(extents, name))


def test_pandas_has_the_same_memory() -> None:
    """A frame has an attribute `flags` of its own, so that column is asked for in brackets, and
    pandas takes no enum for a number."""
    pytest.importorskip("pandas")
    extents = scattered()
    frame = extents.to_pandas()
    assert tuple(frame.columns) == NAMES
    for name, type in zip(NAMES, TYPES, strict=True):
        assert frame[name].dtype == type
        assert address(frame[name].to_numpy()) == address(getattr(extents, name))
    compressed = frame[frame["flags"] & int(Flag.COMPRESSED) != 0]
    assert compressed.stored.sum() == sum(one.stored for one in extents if one.compressed)


def test_polars_has_the_same_memory() -> None:
    polars: Any = pytest.importorskip("polars")
    extents = scattered()
    frame = extents.to_polars()
    assert tuple(frame.columns) == NAMES
    for name, type in zip(NAMES, TYPES, strict=True):
        assert str(frame.schema[name]).lower() == type
        assert address(frame[name].to_numpy(allow_copy=False)) == address(getattr(extents, name))
    by_depth = frame.filter(polars.col("flags") == int(DATA)).group_by("depth").len().sort("depth")
    assert by_depth["len"].to_list() == [100] * 5


@pytest.mark.parametrize("taker", ["numpy", "pandas", "polars"])
def test_columns_outlive_their_extents(taker: str) -> None:
    pytest.importorskip(taker)
    extents = scattered()
    wanted = list(extents.host)
    taken = extents.numpy() if taker == "numpy" else getattr(extents, f"to_{taker}")()
    del extents
    gc.collect()
    for _ in range(20):
        scattered(50)  # What would lie over memory that was given back.
    assert list(taken["host"]) == wanted


@pytest.mark.parametrize("taker", ["numpy", "pandas", "polars"])
def test_slices_and_nothing_are_taken(taker: str) -> None:
    pytest.importorskip(taker)
    extents = scattered()
    for part in extents[10:20], extents[0:0]:
        taken = part.numpy() if taker == "numpy" else getattr(part, f"to_{taker}")()
        assert list(taken["start"]) == list(part.start)
        assert len(taken["flags"]) == len(part)
    assert address(extents[10:20].numpy()["start"]) == address(extents.start) + 80
