"""How sure a median is: quartiles, and confidence intervals by a bootstrap.

The interval is that of the percentile bootstrap of the median, its percentiles moved outwards
for few values (T. Hesterberg, What Teachers Should Know about the Bootstrap, The American
Statistician 69, 2015, section 4.2): without that it is too narrow below some twenty values.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from math import sqrt
from statistics import NormalDist, quantiles

LEVEL = 0.95
RESAMPLES = 4000
SEED = 20  # Any; but the same for all, so that a file gives the same intervals to everyone.

METHOD = (
    f"Intervals: {LEVEL * 100:.0f} % confidence of the median, bootstrap over rounds "
    f"({RESAMPLES} resamples, percentiles expanded for few rounds)."
)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper quartile; of one value that value."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, method="inclusive")
    return low, high


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between what the median lies with `LEVEL` confidence, as far as the values can tell."""
    return _interval(tuple(values))


def quotient_interval(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """The same for the quotient of two medians of values that are no pairs."""
    return _quotient(tuple(above), tuple(below))


def confidence(count: int) -> float:
    """How often an interval from so many values holds the median.

    It is no wider than the values are, and all of so many are on one side of the median
    once in 2 ** (count - 1) times.
    """
    return min(LEVEL, 1 - 0.5 ** (count - 1))


@lru_cache(4096)
def _interval(values: tuple[float, ...]) -> tuple[float, float]:
    chance = random.Random(SEED)
    return _middle(_medians(chance, values), _tail(len(values)))


@lru_cache(1024)
def _quotient(above: tuple[float, ...], below: tuple[float, ...]) -> tuple[float, float]:
    chance = random.Random(SEED)
    drawn = [a / b for a, b in zip(_medians(chance, above), _medians(chance, below), strict=True)]
    return _middle(drawn, _tail(min(len(above), len(below))))


def _medians(chance: random.Random, values: tuple[float, ...]) -> list[float]:
    count = len(values)
    middle, other = count // 2, (count - 1) // 2
    drawn = (sorted(chance.choices(values, k=count)) for _ in range(RESAMPLES))
    return [(one[middle] + one[other]) / 2 for one in drawn]


def _middle(drawn: list[float], tail: float) -> tuple[float, float]:
    ordered = sorted(drawn)
    cut = int(tail * len(ordered))
    return ordered[cut], ordered[-1 - cut]


def _tail(count: int) -> float:
    """The share of resamples to leave out at each end."""
    if count < 2:
        return 0.0
    return NormalDist().cdf(-sqrt(count / (count - 1)) * _student(count - 1))


def _student(degrees: int) -> float:
    """The quantile of Student's distribution (Cornish and Fisher's expansion, within 0.3 %
    from 4 degrees of freedom on; with fewer, too few values for any tail come anyway)."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(float(term / degrees**power) for power, term in enumerate(terms, 1))
