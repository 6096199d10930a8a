"""Figures of points, and of each the ratio to its baseline in the same round."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from statistics import median
from typing import TYPE_CHECKING

from pyvirt.bench.confidence import confidence, interval, quartiles
from pyvirt.fields import frozen

if TYPE_CHECKING:
    from pyvirt.bench.results import Results, Row

#: What a picture and a table show first of a workload: the first of these that it has.
PRIMARY = ("throughput", "latency-p50", "latency-mean", "iops")

#: What is counted exactly, and once.
COUNTED = ("accesses-per-", "notifications-per-", "interrupts-per-")


@frozen(repr=False)
class Spread:
    """One metric of one point: its values by round, and which rounds met a busy host."""

    point: str
    device: str
    workload: str
    metric: str
    unit: str
    values: Mapping[int, float]
    busy: frozenset[int]

    @property
    def median(self) -> float:
        return median(self.values.values())

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles([*self.values.values()])

    @property
    def rounds(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        low, high = self.quartiles
        return (
            f"<Spread: {self.metric} of {self.point}, {self.rounds} rounds, "
            f"median {self.median:g} ({low:g} to {high:g}) {self.unit}>"
        )


@frozen(repr=False)
class Ratio:
    """How many times `baseline`'s figure a `point`'s is: the median over paired rounds.

    Both figures of a pair are of one round, so noise that lasts meets both. `low` to
    `high` is the confidence interval of that median, and holds it `confidence` of the
    times; `lower` and `upper` are the quartiles of the rounds' `ratios`. In `busy` rounds
    something else used the host.
    """

    point: str
    baseline: str
    workload: str
    metric: str
    unit: str
    ratios: tuple[float, ...]
    busy: int

    @property
    def rounds(self) -> int:
        return len(self.ratios)

    @property
    def median(self) -> float:
        return median(self.ratios)

    @property
    def low(self) -> float:
        return interval(self.ratios)[0]

    @property
    def high(self) -> float:
        return interval(self.ratios)[1]

    @property
    def lower(self) -> float:
        return quartiles(self.ratios)[0]

    @property
    def upper(self) -> float:
        return quartiles(self.ratios)[1]

    @property
    def confidence(self) -> float:
        return confidence(self.rounds)

    def __str__(self) -> str:
        if self.rounds == 1:
            return f"{self.median:.2f} x in one round"
        return f"{self.median:.2f} x ({self.low:.2f} to {self.high:.2f})"

    def __repr__(self) -> str:
        return (
            f"<Ratio: {self.metric} of {self.point} to {self.baseline}, "
            f"{self.rounds} rounds, {self}>"
        )


def spreads(rows: Iterable[Row], metric: str | None = None) -> dict[tuple[str, str], Spread]:
    """By point and metric what the rows hold, in their order."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if metric in (None, row.metric):
            found.setdefault((row.point, row.metric), []).append(row)
    return {key: _spread(rows) for key, rows in found.items()}


def _spread(rows: list[Row]) -> Spread:
    """Later rows of a round win: that is a run repeated."""
    one = rows[0]
    values = {row.round: row.value for row in rows}
    busy = {row.round: row.busy for row in rows}
    marked = frozenset(round for round, was in busy.items() if was)
    return Spread(one.point, one.device, one.workload, one.metric, one.unit, values, marked)


def ratios(results: Results, metric: str | None = "throughput") -> tuple[Ratio, ...]:
    """Of each pair that has this metric in common rounds, its ratio.

    Without a metric, each pair's by the first of `PRIMARY` that both have.
    """
    found = spreads(results.rows, metric)
    return tuple(
        ratio
        for point, baseline in results.pairs
        for ratio in _first(found, point, baseline, PRIMARY if metric is None else (metric,))
    )


def _first(
    found: Mapping[tuple[str, str], Spread], point: str, baseline: str, metrics: Iterable[str]
) -> Iterator[Ratio]:
    for metric in metrics:
        if (point, metric) in found and (baseline, metric) in found:
            yield from _ratio(found[point, metric], found[baseline, metric])
            return


def _ratio(point: Spread, baseline: Spread) -> Iterator[Ratio]:
    """Not of a baseline that is 0, which is so many times nothing."""
    rounds = [one for one in point.values if baseline.values.get(one)]
    if rounds:
        yield Ratio(
            point.point,
            baseline.point,
            point.workload,
            point.metric,
            point.unit,
            tuple(point.values[one] / baseline.values[one] for one in rounds),
            len((point.busy | baseline.busy) & {*rounds}),
        )


def better(metric: str, unit: str) -> int:
    """1 when more of it is better, -1 when less is, 0 when that is a matter of taste."""
    if unit in ("B/s", "1/s"):
        return 1
    if unit == "s" or metric.startswith((*COUNTED, "retransmits", "loss")):
        return -1
    return 0


def primary(metrics: Iterable[str]) -> str | None:
    """The metric to show first."""
    held = [*metrics]
    return next((one for one in PRIMARY if one in held), held[0] if held else None)
