"""Compare in one run: alternate the sides, take medians, report ratios and their spread."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen


@frozen
class Timed:
    """What a side returns that took its own time: seconds, and what it worked out."""

    seconds: float
    result: Any


@frozen
class Pairs:
    """Seconds of each side, round by round; the rounds alternated."""

    seconds: Mapping[str, Sequence[float]]
    results: Mapping[str, Any]

    def median(self, side: str) -> float:
        return statistics.median(self.seconds[side])

    def ratio(self, side: str, to: str) -> float:
        """How many times as long `side` takes as `to`: the median of the rounds' ratios.

        Both sides of a round met the same noise, so this is steadier than either time.
        """
        return statistics.median(self.ratios(side, to))

    def ratios(self, side: str, to: str) -> list[float]:
        return [a / b for a, b in zip(self.seconds[side], self.seconds[to], strict=True)]


def alternate(
    sides: Mapping[str, Callable[[], Any]], rounds: int = 7, *, equal: bool = True
) -> Pairs:
    """Run all sides in turn, `rounds` times and once before to warm up; results must be `equal`.

    A side may time itself by returning `Timed`. The order is reversed every other round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Any] = {}
    for number in range(rounds + 1):
        order = list(sides) if number % 2 else list(reversed(sides))
        for name in order:
            took = _timed(sides[name])
            if number:
                seconds[name].append(took.seconds)
            results[name] = took.result
        if equal and len(first := list(results.values())) > 1:
            assert all(one == first[0] for one in first), "the sides did different work"
    return Pairs(seconds, results)


def _timed(side: Callable[[], Any]) -> Timed:
    gc.collect()
    begun = time.perf_counter()
    result = side()
    ended = time.perf_counter()
    return result if isinstance(result, Timed) else Timed(ended - begun, result)


@frozen
class Row:
    """One claim: what was measured, what came out, what was promised."""

    what: str
    value: str
    target: str
    met: bool | None


def below(what: str, value: float, most: float, unit: str = "x") -> Row:
    """A value that shall not exceed `most`."""
    return Row(what, f"{value:.2f} {unit}", f"<= {most:g} {unit}", value <= most)


def above(what: str, value: float, least: float, unit: str = "x") -> Row:
    """A value that shall be at least `least`."""
    return Row(what, f"{value:.2f} {unit}", f">= {least:g} {unit}", value >= least)


def told(what: str, value: str) -> Row:
    """A value without a target."""
    return Row(what, value, "", None)


def table(title: str, rows: Iterable[Row]) -> str:
    """The rows as text."""
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in
              zip(*((row.what, row.value, row.target) for row in rows), strict=True)]  # fmt: skip
    marks = {True: "met", False: "MISSED", None: ""}
    lines = [
        f"  {row.what:<{widths[0]}}  {row.value:>{widths[1]}}  "
        f"{row.target:<{widths[2]}}  {marks[row.met]}".rstrip()
        for row in rows
    ]
    return "\n".join([title, *lines])
