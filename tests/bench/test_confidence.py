"""Intervals hold the median as often as they say, and are the same for everyone."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.bench import confidence
from pyvirt.bench.confidence import interval, quartiles, quotient_interval

VALUES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=12)


@settings(max_examples=25)
@given(VALUES)
def test_an_interval_holds_the_median_of_its_values(values: list[float]) -> None:
    low, high = interval(values)
    assert min(values) <= low <= statistics.median(values) <= high <= max(values)
    assert interval(values) == (low, high)
    low, high = quartiles(values)
    assert min(values) <= low <= statistics.median(values) <= high <= max(values)


@settings(max_examples=25)
@given(VALUES, st.floats(0.01, 100))
def test_an_interval_scales_with_its_values(values: list[float], times: float) -> None:
    scaled = interval([value * times for value in values])
    assert scaled == pytest.approx([bound * times for bound in interval(values)])


@pytest.mark.parametrize("rounds", [3, 5, 6, 9, 14])
def test_an_interval_covers_as_often_as_it_says(
    rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 experiments of noise as skewed as throughputs are; 5 % is three standard errors."""
    monkeypatch.setattr(confidence, "RESAMPLES", 400)
    chance = random.Random(7)
    covered = 0
    for _ in range(200):
        values = [math.exp(chance.gauss(0, 0.5)) for _ in range(rounds)]
        low, high = confidence._interval.__wrapped__(tuple(values))
        covered += low <= 1 <= high
    assert covered / 200 >= confidence.confidence(rounds) - 0.05


def test_confidence_is_what_so_few_values_allow() -> None:
    assert [confidence.confidence(count) for count in (1, 2, 5, 6, 100)] == [
        0, 0.5, 0.9375, 0.95, 0.95,
    ]  # fmt: skip


def test_students_quantiles_are_those_of_the_tables() -> None:
    table = {4: 2.776, 6: 2.447, 8: 2.306, 14: 2.145, 30: 2.042}
    for degrees, value in table.items():
        assert confidence._student(degrees) == pytest.approx(value, rel=0.003)


def test_a_quotient_of_equals_is_about_one() -> None:
    low, high = quotient_interval([9, 10, 11, 10, 10], [10, 9, 11, 10, 10])
    assert low < 1 < high
    assert quotient_interval([20.0] * 5, [10.0] * 5) == (2, 2)
