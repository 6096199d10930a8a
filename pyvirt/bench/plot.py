"""Results as a picture (SVG): of each workload the figures, and beside them the ratios.

On the left a bar for each device (its median), its quartiles as a whisker and every round as
a dot, hollow when the host was busy. On the right the paired ratio to the baseline with its
confidence interval, on a logarithmic scale: twice as much is as far from 1 as half.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from attrs import frozen

from pyvirt.bench import labels
from pyvirt.bench.groups import Group, Line, groups
from pyvirt.bench.ratios import Ratio
from pyvirt.html import visible
from pyvirt.virtio.tables import package

if TYPE_CHECKING:
    from pyvirt.bench.results import Results

WIDTH = 960
_NAME, _BAR, _BAR_END, _RATIO, _RATIO_END, _COST = 150, 160, 480, 590, 790, 944
_ROW, _HEAD, _FOOT = 26, 44, 34
_TOP = 88
#: Virtio's colour, and that of what it replaces (Okabe and Ito; apart for every eye).
_VIRTIO, _OTHER = "#0072b2", "#9a9a9a"
_WARNING = "#b4470a"
_READING = (
    "Bars are medians, their whiskers quartiles, dots single rounds. Ratios are medians of pairs "
    "of the same round, with their confidence intervals."
)


def svg(results: Results, metric: str | None = None) -> str:
    """The picture."""
    found = groups(results, metric)
    body, y = [*_heading(results)], float(_TOP)
    scale = _Times.around([line.ratio for group in found for line in group.lines])
    for group in found:
        body += _group(group, scale, y)
        y += _HEAD + _ROW * len(group.lines) + _FOOT
    if not found:
        body.append(_text(_BAR, y + 16, "nothing was measured", fill="#999"))
        y += _ROW
    y += 10
    for note in (_READING, *labels.notes(results)):
        for number, line in enumerate(textwrap.wrap(note, 140)):
            body.append(_text(24 if number else 16, y, line, fill="#555"))
            y += 16
        y += 4
    height = y + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        f'width="{WIDTH}" height="{height:g}" font-family="sans-serif" font-size="12" '
        f'fill="#333"><rect width="100%" height="100%" fill="#fff"/>{"".join(body)}</svg>'
    )


def png(results: Results, metric: str | None = None) -> bytes:
    """The picture as PNG; raises `UnsupportedError` without the package cairosvg."""
    made: bytes = package("cairosvg").svg2png(bytestring=svg(results, metric).encode(), scale=2)
    return made


def _heading(results: Results) -> Iterator[str]:
    devices = sorted({row.device for row in results.rows})
    both = {name.startswith("virtio") for name in devices} == {True, False}
    title = "Virtio and what it replaces" if both else ", ".join(devices[:4]) or "No devices"
    label = labels.accelerator(results.meta)
    yield _text(16, 28, title, size=19, weight="bold", fill="#1a1a1a")
    colour = _VIRTIO if label == "KVM" else _WARNING
    yield _text(16, 49, label, size=13, weight="bold", fill=colour)
    yield _text(16, 67, labels.source(results.meta), fill="#666")
    yield _line(16, 76, WIDTH - 16, 76, "#ddd")


# -- A group ----------------------------------------------------------------------------------


def _group(group: Group, scale: _Times, top: float) -> Iterator[str]:
    yield _text(16, top + 16, group.title, size=14, weight="bold", fill="#1a1a1a")
    first, last = top + _HEAD, top + _HEAD + _ROW * len(group.lines)
    axis = _Axis.of(group)
    yield _text(_BAR, top + 36, group.metric, fill="#666")
    yield from _axis(group, axis, first, last)
    if group.baseline is not None:
        yield _text(_RATIO, top + 36, f"times {group.baseline}, {group.sure}", fill="#666")
        yield from _times_axis(scale, first, last)
    yield _text(_COST, top + 36, group.cost, anchor="end", fill="#666")
    for number, line in enumerate(group.lines):
        yield from _row(group, line, axis, scale, first + _ROW * (number + 0.5))


def _row(group: Group, line: Line, axis: _Axis, scale: _Times, y: float) -> Iterator[str]:
    colour = _VIRTIO if line.virtio else _OTHER
    weight = "bold" if line.virtio else "normal"
    yield _text(_NAME, y + 4, line.device, anchor="end", weight=weight, fill=colour if
                line.virtio else "#444")  # fmt: skip
    yield from _bar(line, axis, colour, y)
    yield _text(_BAR_END + 10, y + 4, _said(group, line.spread.median), weight=weight)
    if line.ratio is not None:
        yield from _ratio(line.ratio, scale, colour, y)
    if line.accesses is not None:
        yield _text(_COST, y + 4, f"{line.accesses:.3g}", anchor="end", weight=weight)


def _bar(line: Line, axis: _Axis, colour: str, y: float) -> Iterator[str]:
    spread = line.spread
    end, low, high = (axis.x(value) for value in (spread.median, *spread.quartiles))
    width = max(end - _BAR, 0.5)
    yield (
        f'<rect x="{_BAR}" y="{y - 8:.1f}" width="{width:.1f}" height="16" rx="1.5" '
        f'fill="{colour}" fill-opacity="0.35"/>'
    )
    yield _line(end, y - 8, end, y + 8, colour, 2)
    if spread.rounds > 1:
        yield from _whisker(low, high, y, colour, 1.5)
    for round, value in spread.values.items():
        fill = "#fff" if round in spread.busy else colour
        yield (
            f'<circle cx="{axis.x(value):.1f}" cy="{y:.1f}" r="2.4" fill="{fill}" '
            f'fill-opacity="0.8" stroke="{colour}" stroke-width="0.9"/>'
        )


def _ratio(ratio: Ratio, scale: _Times, colour: str, y: float) -> Iterator[str]:
    if ratio.rounds > 1:
        yield from _whisker(scale.x(ratio.low), scale.x(ratio.high), y, colour, 2)
    x = scale.x(ratio.median)
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" stroke="#fff"/>'
    yield _text(_RATIO_END + 10, y + 4, f"{ratio.median:.2f} x", weight="bold")


def _whisker(low: float, high: float, y: float, colour: str, width: float) -> Iterator[str]:
    yield _line(low, y, high, y, colour, width)
    for x in (low, high):
        yield _line(x, y - 4, x, y + 4, colour, width)


# -- Axes -------------------------------------------------------------------------------------


@frozen
class _Axis:
    """Figures from 0 on."""

    most: float
    marks: tuple[float, ...]

    @classmethod
    def of(cls, group: Group) -> _Axis:
        """In steps that look round in the unit in which the marks are written."""
        most = max(value for line in group.lines for value in line.spread.values.values())
        most = most if most > 0 else 1.0
        binary = group.unit == "B" or (group.unit == "B/s" and not group.network)
        base = 1024.0 if binary else 1000.0
        factor = 8.0 if group.unit == "B/s" and group.network else 1.0
        prefix = base ** math.floor(math.log(most * factor, base) + 1e-9) / factor
        step = _step(most / prefix / 4) * prefix
        count = math.ceil(most / step - 1e-9)
        return cls(max(count * step, most), tuple(step * number for number in range(count + 1)))

    def x(self, value: float) -> float:
        return _BAR + (_BAR_END - _BAR) * min(max(value / self.most, 0.0), 1.0)


@frozen
class _Times:
    """Ratios on both sides of 1; `most` times and one `most`-th are its ends."""

    most: float

    @classmethod
    def around(cls, ratios: Sequence[Ratio | None]) -> _Times:
        """Wide enough for the intervals, but no wider than medians need by far."""
        there = [one for one in ratios if one is not None and one.median > 0]
        needed = [max(one.median, 1 / one.median) for one in there]
        needed += [min(max(one.high, 1 / one.low), 16.0) for one in there if one.low > 0]
        return cls(2.0 ** max(1, math.ceil(math.log2(max(needed, default=2.0)) - 1e-9)))

    def x(self, ratio: float) -> float:
        half = (_RATIO_END - _RATIO) / 2
        where = math.log(max(ratio, 1e-9)) / math.log(self.most)
        return _RATIO + half * (1 + min(max(where, -1.0), 1.0))

    @property
    def marks(self) -> tuple[float, ...]:
        powers = round(math.log2(self.most))
        step = -(-powers // 3)
        below = range(-(powers // step) * step, powers + 1, step)
        return tuple(2.0**power for power in below)


def _axis(group: Group, axis: _Axis, top: float, bottom: float) -> Iterator[str]:
    for mark in axis.marks:
        x = axis.x(mark)
        yield _line(x, top, x, bottom, "#e8e8e8" if mark else "#999")
        yield _text(x, bottom + 14, _said(group, mark), anchor="middle", size=10, fill="#888")


def _times_axis(scale: _Times, top: float, bottom: float) -> Iterator[str]:
    for mark in scale.marks:
        x = scale.x(mark)
        yield _line(x, top, x, bottom, "#999" if mark == 1 else "#e8e8e8")
        words = f"{mark:g}" if mark >= 1 else f"1/{1 / mark:g}"
        yield _text(x, bottom + 14, words, anchor="middle", size=10, fill="#888")


def _step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20 … that is not smaller."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-12)))
    return next(one * power for one in (1, 2, 5, 10) if one * power >= least * (1 - 1e-9))


def _said(group: Group, value: float) -> str:
    return labels.quantity(value, group.unit, network=group.network)


# -- Marks ------------------------------------------------------------------------------------


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1
) -> str:
    path = f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"
    return f'<path d="{path}" stroke="{colour}" stroke-width="{width:g}" fill="none"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: float = 12,
    weight: str = "normal",
    fill: str = "#333",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" '
        f'font-weight="{weight}" fill="{escape(fill)}">{visible(words)}</text>'
    )
