"""Two results against each other, with verdicts that respect the noise.

What cannot be compared is said and not computed. Paired ratios are the better witnesses: what
the host did during a whole run meets both sides of a pair, and cancels out of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

from attrs import field

from pyvirt import fields, html
from pyvirt.bench import labels
from pyvirt.bench.confidence import METHOD, quotient_interval
from pyvirt.bench.ratios import COUNTED, PRIMARY, Ratio, Spread, better, ratios, spreads
from pyvirt.errors import shown
from pyvirt.fields import frozen

if TYPE_CHECKING:
    from pyvirt.bench.results import Results, Row

FASTER, SLOWER, MORE, FEWER = "faster", "slower", "more", "fewer"
SAME, INCOMPARABLE = "no difference seen", "not comparable"

#: With fewer rounds on a side, no verdict is given: nobody knows the noise.
LEAST_ROUNDS = 3
#: What is counted and not timed is not the same when it differs by more than this share.
COUNTING = 0.02

_TOLD = ("qemu", "guest kernel", "pyvirt", "fio", "iperf3")


@frozen(repr=False)
class Change:
    """A point's metric in two results, or with a `baseline` its paired ratio.

    `before` and `after` are medians (in `unit`; of a ratio, 1), `quotient` the second to the
    first, and `low` to `high` its confidence interval. `why` it is not comparable, or what
    weakens the verdict, is a clause.
    """

    point: str
    baseline: str
    metric: str
    unit: str
    verdict: str
    why: str = ""
    before: float | None = None
    after: float | None = None
    quotient: float | None = None
    low: float | None = None
    high: float | None = None
    network: bool = False

    @property
    def name(self) -> str:
        return f"{self.point} to {self.baseline}" if self.baseline else self.point

    def __str__(self) -> str:
        return f"{self.verdict}: {self.why}" if self.why else self.verdict

    def __repr__(self) -> str:
        return f"<Change: {self.metric} of {self.name}, {self}>"


@frozen(repr=False)
class Comparison:
    """What is different in a second result. `differences` are of where the figures come from."""

    changes: tuple[Change, ...] = field(converter=fields.to_tuple)
    differences: tuple[str, ...] = field(converter=fields.to_tuple)
    label: str

    def table(self) -> str:
        """As text: a line for each change, then what else differs."""
        from pyvirt.bench.text import aligned

        head = ("", "metric", "before", "after", "after / before", "verdict")
        rows = [head, *(_cells(change) for change in self.changes)]
        end = [*(f"Also different: {shown(one)}." for one in self.differences), METHOD]
        return "\n\n".join([shown(self.label), *aligned([rows]), "\n".join(end)])

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        verdicts = [change.verdict for change in self.changes]
        told = ", ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts))
        return f"<Comparison: {told or 'nothing in common'}; {self.label}>"

    def _repr_html_(self) -> str:
        head = ("", "metric", "before", "after", "after / before", "verdict")
        body = html.table(head, map(_cells, self.changes))
        return f"<div><strong>{html.visible(self.label)}</strong>{body}</div>"


def compare(before: Results, after: Results) -> Comparison:
    """What is different in `after`: first paired ratios, then figures, then counts."""
    why = _hosts(before.meta, after.meta)
    changes = [*_ratios(before, after, why), *_figures(before, after, why)]
    label = labels.accelerator(before.meta)
    if (other := labels.accelerator(after.meta)) != label:
        label = f"{label} against {other}"
    return Comparison(changes, _differences(before.meta, after.meta), label)


def _hosts(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Why no figure of one is comparable with the other."""
    names = before.get("accelerator"), after.get("accelerator")
    if names[0] != names[1]:
        return f"other accelerator ({names[0]}, {names[1]})"
    ours, theirs = (_host(meta) for meta in (before, after))
    for what in ("cpu", "cpus"):
        if ours.get(what) != theirs.get(what):
            return f"other host ({ours.get(what)} and {theirs.get(what)} {what})"
    return ""


def _host(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    host = meta.get("host")
    return host if isinstance(host, Mapping) else {}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in _TOLD:
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name)} before, {after.get(name)} after"
    kernels = [_host(meta).get("kernel") for meta in (before, after)]
    if kernels[0] != kernels[1]:
        yield f"host kernel {kernels[0]} before, {kernels[1]} after"


def _ratios(before: Results, after: Results, why: str) -> Iterator[Change]:
    ours = {(one.point, one.baseline): one for one in ratios(before, None)}
    options = _options(before), _options(after)
    for one in ratios(after, None):
        old = ours.get((one.point, one.baseline))
        if old is None or old.metric != one.metric:
            continue
        reason = why or _other_options(options, one.point) or _other_options(options, one.baseline)
        yield _change(one, old.ratios, one.ratios, reason, one.baseline, "1", False)


def _figures(before: Results, after: Results, why: str) -> Iterator[Change]:
    ours = spreads(before.rows)
    options = _options(before), _options(after)
    for key, one in spreads(after.rows).items():
        old = ours.get(key)
        if old is None or not one.metric.startswith((*PRIMARY, *COUNTED)):
            continue
        reason = why or _other_options(options, one.point)
        values = [*old.values.values()], [*one.values.values()]
        network = "backend" in options[1].get(one.point, {})
        yield _change(one, *values, reason, "", one.unit, network)


def _options(results: Results) -> dict[str, Mapping[str, Any]]:
    return {row.point: _known(row) for row in results.rows}


def _known(row: Row) -> Mapping[str, Any]:
    return {key: value for key, value in row.options.items() if key != "label"}


def _other_options(options: tuple[Mapping[str, Any], Mapping[str, Any]], point: str) -> str:
    before, after = (one.get(point, {}) for one in options)
    for name in (*before, *after):
        if before.get(name) != after.get(name):
            return f"other options ({name} {before.get(name)}, {after.get(name)})"
    return ""


def _change(
    of: Ratio | Spread,
    before: list[float] | tuple[float, ...],
    after: list[float] | tuple[float, ...],
    why: str,
    baseline: str,
    unit: str,
    network: bool,
) -> Change:
    old, new = median(before), median(after)
    common = (of.point, baseline, of.metric, unit)
    if why:
        return Change(*common, INCOMPARABLE, why, old, new, network=network)
    if of.metric.startswith(COUNTED):
        return Change(*common, *_counted(old, new), old, new, network=network)
    if min(before) <= 0 or min(after) <= 0:
        return Change(*common, INCOMPARABLE, "a figure is 0", old, new, network=network)
    low, high = quotient_interval(after, before)
    verdict = _verdict(of, len(before), len(after), low, high)
    return Change(*common, *verdict, old, new, new / old, low, high, network)


def _counted(before: float, after: float) -> tuple[str, str]:
    if abs(after - before) <= COUNTING * max(before, after):
        return SAME, ""
    return (MORE if after > before else FEWER), ""


def _verdict(of: Ratio | Spread, old: int, new: int, low: float, high: float) -> tuple[str, str]:
    if min(old, new) < LEAST_ROUNDS:
        return SAME, f"too few rounds to know the noise ({min(old, new)})"
    if low <= 1 <= high:
        return SAME, ""
    sign = better(of.metric, of.unit) or 1
    return (FASTER if (low > 1) == (sign > 0) else SLOWER), ""


def _cells(change: Change) -> tuple[str, ...]:
    def said(value: float | None) -> str:
        if value is None:
            return ""
        if change.baseline:
            return f"{value:.2f} x"
        return labels.quantity(value, change.unit, network=change.network)

    quotient = ""
    if change.quotient is not None:
        quotient = f"{change.quotient:.2f} ({change.low:.2f} to {change.high:.2f})"
    return (
        change.name,
        change.metric,
        said(change.before),
        said(change.after),
        quotient,
        str(change),
    )
