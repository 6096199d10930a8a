"""Points that belong side by side: a baseline, and what is compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyvirt.bench.confidence import LEVEL
from pyvirt.bench.ratios import COUNTED, Ratio, Spread, primary, ratios, spreads
from pyvirt.fields import frozen

if TYPE_CHECKING:
    from pyvirt.bench.results import Results, Row

#: Options of a point that tell what is behind the device, and what they usually are.
_BEHIND = {"backing": "", "format": "raw", "cache": None, "aio": None, "backend": ""}


@frozen
class Line:
    """One point of a group: its figure, its ratio to the baseline, and what a request costs."""

    point: str
    device: str
    spread: Spread
    ratio: Ratio | None
    #: Accesses to registers of each request of a disk, and each MiB over a network (a packet
    #: of one card is not a packet of another), where they were counted.
    accesses: float | None
    counts: Mapping[str, float]

    @property
    def virtio(self) -> bool:
        return self.device.startswith("virtio")


@frozen
class Group:
    """Points under one workload, with the metric that is shown of them."""

    workload: str
    behind: str
    metric: str
    unit: str
    baseline: str | None
    network: bool
    lines: tuple[Line, ...]

    @property
    def sure(self) -> str:
        """How sure the ratios' intervals are: "95 % interval"."""
        found = [line.ratio.confidence for line in self.lines if line.ratio is not None]
        least = min(found, default=LEVEL)
        return f"{least * 100:.0f} % interval" if least else "one round"

    @property
    def cost(self) -> str:
        """What the lines' `accesses` are of; empty where none were counted."""
        if all(line.accesses is None for line in self.lines):
            return ""
        return "accesses/MiB" if self.network else "accesses/request"

    @property
    def title(self) -> str:
        """What was done, over what: "write-1M-x4 on ram"."""
        return f"{self.workload} on {self.behind}" if self.behind else self.workload


def groups(results: Results, metric: str | None = None) -> tuple[Group, ...]:
    """All points that have `metric` (by default the first that a workload has), in groups."""
    baselines = dict(results.pairs)
    bases = {*baselines.values()}
    keys: dict[tuple[str, str], list[Row]] = {}
    for row in results.rows:
        place = baselines.get(row.point, row.point)
        keys.setdefault((row.workload, place if place in bases else ""), []).append(row)
    order = list(dict.fromkeys(baselines.values()))  # rounds turn the points around
    ordered = sorted(keys, key=lambda key: order.index(key[1]) if key[1] else len(order))
    made = [_group(results, keys[key], key[1] or None, metric) for key in ordered]
    return tuple(group for group in made if group is not None)


def _group(
    results: Results, rows: Sequence[Row], baseline: str | None, metric: str | None
) -> Group | None:
    shown = metric or primary(_timed(rows) or dict.fromkeys(row.metric for row in rows))
    held = spreads(rows)
    wanted = [spread for (_, name), spread in held.items() if name == shown]
    if shown is None or not wanted:
        return None
    found = {ratio.point: ratio for ratio in ratios(results, shown) if ratio.baseline == baseline}
    lines = [_line(spread, found.get(spread.point), held) for spread in wanted]
    lines.sort(key=lambda line: (line.point != baseline, line.virtio, line.device))
    options = rows[0].options
    return Group(
        rows[0].workload,
        _behind(options),
        shown,
        wanted[0].unit,
        next((line.device for line in lines if line.point == baseline), None),
        "backend" in options,
        tuple(lines),
    )


def _timed(rows: Sequence[Row]) -> dict[str, None]:
    return dict.fromkeys(row.metric for row in rows if not row.metric.startswith(COUNTED))


def _line(
    spread: Spread, ratio: Ratio | None, held: Mapping[tuple[str, str], Spread]
) -> Line:
    counts = {
        metric: other.median
        for (point, metric), other in held.items()
        if point == spread.point and metric.startswith(COUNTED)
    }
    per = "MiB" if "accesses-per-packet" in counts else "request"
    accesses = counts.get(f"accesses-per-{per}")
    return Line(spread.point, spread.device, spread, ratio, accesses, counts)


def _behind(options: Mapping[str, Any]) -> str:
    """What is behind the device, without what is usual."""
    said = {key: options.get(key, usual) for key, usual in _BEHIND.items()}
    words = [str(value) for key, value in said.items() if value != _BEHIND[key]]
    return ", ".join([*words, *(["vhost"] if options.get("vhost") else [])])
