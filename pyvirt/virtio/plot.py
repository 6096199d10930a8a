"""A trace as a picture (SVG): latencies, sizes and depths over time.

Each dot stands for the requests that fall on it, and is the darker the more they are; so a
picture of a million requests is no larger than one of some thousands.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from attrs import frozen

from pyvirt.virtio.quantities import amount, duration
from pyvirt.virtio.tables import package

if TYPE_CHECKING:
    from pyvirt.virtio.trace import Trace

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _GAP = 860, 150, 74, 24, 72, 34
_CELL = 3  # pixels of a dot
#: Colours that colour-blind people tell apart (Okabe and Ito), by what is most often asked.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
_FIRST = ("read", "write", "flush", "discard", "receive", "transmit")

Point = tuple[float, float, int]  # seconds, value, series


@frozen
class Scale:
    """From values to pixels; `marks` are values that are written beside the axis."""

    low: float
    high: float
    marks: tuple[float, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far from `low` to `high` a value lies."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(1.0, max(0.0, (value - low) / (high - low)))


@frozen
class Panel:
    """One of the three pictures below each other."""

    title: str
    points: Sequence[Point]
    scale: Scale
    label: Callable[[float], str]
    #: Whether many values are the same: each series then lies a dot higher, not to hide another.
    same: bool = False


def svg(trace: Trace) -> str:
    """The picture."""
    series, latencies, sizes, depths = _points(trace)
    panels = [
        Panel("latency", latencies, _powers(latencies, 10, 1e-6), duration),
        Panel("data of a request", sizes, _powers(sizes, 4, 512), amount, True),
        Panel("requests in flight", depths, _linear(_largest(depths)), lambda n: f"{n:g}", True),
    ]
    time = _time_scale(trace, depths)
    height = _TOP + len(panels) * (_HEIGHT + _GAP) + 18
    body = [*_heading(trace, series)]
    for number, panel in enumerate(panels):
        body += _panel(panel, time, _TOP + number * (_HEIGHT + _GAP), len(series))
    body += _time_axis(time, _TOP + len(panels) * (_HEIGHT + _GAP) - _GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="11" '
        f'fill="#444"><rect width="100%" height="100%" fill="#fff"/>{"".join(body)}</svg>'
    )


def png(trace: Trace) -> bytes:
    """The picture as PNG; raises `UnsupportedError` without the package cairosvg."""
    made: bytes = package("cairosvg").svg2png(bytestring=svg(trace).encode(), scale=2)
    return made


def _points(trace: Trace) -> tuple[list[str], list[Point], list[Point], list[Point]]:
    """The names of the series, and the points of each panel."""
    requests = list(trace)
    counts = Counter(one.operation for one in requests)
    series = sorted(counts, key=lambda name: (_rank(name), -counts[name]))
    places = {name: min(at, len(_COLOURS) - 1) for at, name in enumerate(series)}
    latencies, sizes, depths = [], [], []
    for one in requests:
        made, place = one.made or 0.0, places[one.operation]
        depths.append((made, float(one.depth or 0), place))
        if one.latency is not None:
            latencies.append((made, one.latency, place))
        if one.length:
            sizes.append((made, float(one.length), place))
    return series, latencies, sizes, depths


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _largest(points: Iterable[Point]) -> float:
    return max((value for _, value, _ in points), default=1.0)


def _powers(points: Sequence[Point], base: int, smallest: float) -> Scale:
    """A logarithmic scale around the values, from a power of `base` to one."""
    values = [max(value, smallest * 1e-3) for _, value, _ in points] or [smallest]
    low = math.floor(math.log(min(values) / smallest, base) + 1e-9)
    high = math.ceil(math.log(max(values) / smallest, base) - 1e-9)
    high = max(high, low + 1)
    step = -(-(high - low) // 5)
    marks = tuple(smallest * float(base) ** at for at in range(low, high + 1, step))
    return Scale(smallest * float(base) ** low, smallest * float(base) ** high, marks, True)


def _linear(largest: float) -> Scale:
    """A scale for counts, from 0 in steps that people count by."""
    step = max(1.0, _step(largest / 4))
    count = max(1, math.ceil(largest / step - 1e-9))
    return Scale(0.0, count * step, tuple(at * step for at in range(count + 1)))


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(least, 1e-9)))
    return next(one * power for one in (1, 2, 5, 10) if one * power >= least * (1 - 1e-9))


def _time_scale(trace: Trace, depths: Sequence[Point]) -> Scale:
    last = max([trace.seconds, *(made for made, _, _ in depths)])
    last = last or 1.0
    step = _step(last / 8)
    return Scale(0.0, last, tuple(at * step for at in range(int(last / step + 1e-9) + 1)))


def _x(scale: Scale, seconds: float) -> float:
    return _LEFT + scale.share(seconds) * (_WIDTH - _LEFT - _RIGHT)


def _text(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#e4e4e4") -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" fill="none"/>'


def _heading(trace: Trace, series: Sequence[str]) -> Iterator[str]:
    """What is shown, what is missing, and the colours."""
    named = f"{len(trace)} requests in {duration(trace.seconds)}, {trace.lost}"
    yield _text(_LEFT, 18, named, more=' font-size="13" fill="#222"')
    x = float(_LEFT)
    shown = [*series[: len(_COLOURS) - 1]]
    shown += ["others"] if len(series) > len(_COLOURS) else series[len(_COLOURS) - 1 :]
    for name, colour in zip(shown, _COLOURS, strict=False):
        yield f'<rect x="{x:.1f}" y="29" width="9" height="9" fill="{colour}"/>'
        yield _text(x + 13, 37, name)
        x += 30 + 6.2 * len(name)


def _panel(panel: Panel, time: Scale, top: float, series: int) -> Iterator[str]:
    bottom = top + _HEIGHT
    for mark in time.marks:
        yield _line(_x(time, mark), top, _x(time, mark), bottom, "#f2f2f2")
    for mark in panel.scale.marks:
        y = bottom - panel.scale.share(mark) * _HEIGHT
        yield _line(_LEFT, y, _WIDTH - _RIGHT, y)
        yield _text(_LEFT - 7, y + 4, panel.label(mark), "end")
    yield _text(_LEFT, top - 6, panel.title, more=' font-weight="bold" fill="#222"')
    if not panel.points:
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        yield _text(middle, top + _HEIGHT / 2, "nothing was seen", "middle", ' fill="#999"')
    yield from _dots(panel, time, bottom)


def _dots(panel: Panel, time: Scale, bottom: float) -> Iterator[str]:
    cells: Counter[tuple[int, int, int]] = Counter(
        (
            int(_x(time, made)) // _CELL,
            int(bottom - panel.scale.share(value) * _HEIGHT) // _CELL - panel.same * place,
            place,
        )
        for made, value, place in panel.points
    )
    shades: dict[tuple[int, str], list[str]] = {}
    for (x, y, place), count in sorted(cells.items()):
        opacity = f"{min(0.95, 0.45 + 0.12 * math.log2(count)):.2f}"
        path = shades.setdefault((place, opacity), [])
        path.append(f"M{x * _CELL} {y * _CELL}h{_CELL}v{_CELL}h-{_CELL}z")
    for (place, opacity), path in shades.items():
        colour = _COLOURS[place]
        yield f'<path fill="{colour}" fill-opacity="{opacity}" d="{"".join(path)}"/>'


def _time_axis(time: Scale, bottom: float) -> Iterator[str]:
    yield _line(_LEFT, bottom, _WIDTH - _RIGHT, bottom, "#888")
    for mark in time.marks:
        yield _text(_x(time, mark), bottom + 16, duration(mark), "middle")
    yield _text(_WIDTH - _RIGHT, bottom + 32, "since the trace began", "end", ' fill="#888"')
