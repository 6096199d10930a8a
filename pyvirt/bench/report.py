"""Results as one HTML file: no scripts, nothing from outside."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyvirt.bench import labels, plot
from pyvirt.bench.groups import Group, Line, groups
from pyvirt.bench.ratios import COUNTED
from pyvirt.html import visible

if TYPE_CHECKING:
    from pyvirt.bench.results import Results

_STYLE = """
:root { color-scheme: light; --line: #e2e2e2; --soft: #666 }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #f5f5f3; margin: 0 }
main { max-width: 1000px; margin: 0 auto; padding: 28px 20px 60px }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px;
          padding: 18px 22px; margin: 18px 0; overflow-x: auto }
h1 { font-size: 27px; margin: 0 0 6px } h2 { font-size: 18px; margin: 0 0 12px }
h3 { font-size: 15px; margin: 18px 0 6px }
.label { display: inline-block; padding: 2px 10px; border-radius: 12px; font-weight: 600;
         background: #fdeadd; color: #8f3706 }
.label.kvm { background: #dcedf8; color: #00507e }
.source, .note { color: var(--soft) } .note { margin: 4px 0; font-size: 13.5px }
.head { display: flex; flex-wrap: wrap; gap: 14px; margin: 18px 0 }
.number { flex: 1 1 250px; background: #fff; border: 1px solid var(--line); border-radius: 8px;
          padding: 14px 18px }
.number b { font-size: 30px; color: #0072b2; display: block; line-height: 1.2 }
.number b.unsure { color: #777 }
.number small { color: var(--soft); display: block }
table { border-collapse: collapse; font-size: 13.5px; width: 100% }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--line);
         font-variant-numeric: tabular-nums; vertical-align: top }
th { font-weight: 600; color: var(--soft) }
th:first-child, td:first-child { text-align: left; white-space: nowrap }
tr.virtio td:first-child { color: #0072b2; font-weight: 600 }
table.facts { width: auto } table.facts td { text-align: left }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; background: #f7f7f5;
      padding: 10px 12px; border-radius: 6px; margin: 6px 0 }
svg { max-width: 100%; height: auto }
"""


_COUNTING = (
    "Counted by QEMU's own tracing in runs of known length. Of a disk the accesses are nearly the "
    "same in each run; how many packets share one, and how many requests an interrupt, is a "
    "matter of time."
)


def page(results: Results) -> str:
    """The report as a whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Virtual devices measured</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(_sections(results))}</main></body></html>\n"
    )


def body(results: Results) -> str:
    """The picture and what failed, for a notebook."""
    return f"<div>{plot.svg(results)}{''.join(_failures(results))}</div>"


def _sections(results: Results) -> Iterator[str]:
    found = groups(results)
    yield from _head(results)
    yield from _headlines(found)
    yield _section("", plot.svg(results))
    yield _section("Figures", *(_figures(group) for group in found))
    yield _section("Costs of a request", *_costs(found))
    yield from _failures(results)
    yield _section("How it was measured", _facts(results.meta))
    yield _section("What this says", *(_note(note) for note in labels.notes(results)))


def _head(results: Results) -> Iterator[str]:
    kind = "label kvm" if results.meta.get("accelerator") == "kvm" else "label"
    yield "<h1>Virtual devices measured</h1>"
    yield f'<div class="{kind}">{visible(labels.accelerator(results.meta))}</div>'
    yield f'<p class="source">{visible(labels.source(results.meta))}</p>'


def _section(title: str, *parts: str) -> str:
    if not any(parts):
        return ""
    head = f"<h2>{visible(title)}</h2>" if title else ""
    return f"<section>{head}{''.join(parts)}</section>"


def _note(text: str) -> str:
    return f'<p class="note">{visible(text)}</p>'


# -- Parts ------------------------------------------------------------------------------------


def _headlines(found: Iterable[Group]) -> Iterator[str]:
    """Plain virtio-blk and virtio-net to their baselines, in large."""
    told = [
        _headline(group, line)
        for group in found
        for line in group.lines
        if line.device in ("virtio-blk", "virtio-net") and line.ratio is not None
    ]
    if 0 < len(told) <= 6:
        yield f'<div class="head">{"".join(told)}</div>'


def _headline(group: Group, line: Line) -> str:
    assert line.ratio is not None
    ratio = line.ratio
    what = f"{group.metric} of {line.device} to {ratio.baseline.partition('/')[0]}"
    sure = f"{ratio.low:.2f} to {ratio.high:.2f} in {ratio.rounds} rounds, {group.title}"
    unsure = " class=unsure" if ratio.low <= 1 <= ratio.high else ""
    return (
        f'<div class="number"><b{unsure}>{ratio.median:.2f} x</b>{visible(what)}'
        f"<small>{visible(sure)}</small></div>"
    )


def _figures(group: Group) -> str:
    head = ["", group.metric, "quartiles", "rounds"]
    head += [f"times {group.baseline}", group.sure] if group.baseline else []
    rows = [(line.virtio, [*_figure(group, line)]) for line in group.lines]
    return f"<h3>{visible(group.title)}</h3>{_table(head, rows)}"


def _figure(group: Group, line: Line) -> Iterator[str]:
    spread, ratio = line.spread, line.ratio
    yield line.device
    yield labels.quantity(spread.median, group.unit, network=group.network)
    yield labels.span(*spread.quartiles, group.unit, network=group.network)
    yield f"{spread.rounds}{'*' if spread.busy else ''}"
    if group.baseline:
        yield f"{ratio.median:.2f}" if ratio else ""
        yield f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio and ratio.rounds > 1 else ""


def _costs(found: Iterable[Group]) -> Iterator[str]:
    for group in found:
        names = dict.fromkeys(name for line in group.lines for name in line.counts)
        if not names:
            continue
        head = ["", *(name.replace("-per-", " / ") for name in names)]
        rows = [
            (line.virtio, [line.device, *(_count(line, name) for name in names)])
            for line in group.lines
        ]
        yield f"<h3>{visible(group.title)}</h3>{_table(head, rows)}"
    if any(line.counts for group in found for line in group.lines):
        yield _note(_COUNTING)


def _count(line: Line, name: str) -> str:
    assert name.startswith(COUNTED)
    return labels.quantity(line.counts[name], "1") if name in line.counts else ""


def _failures(results: Results) -> Iterator[str]:
    if results.failures:
        yield _section("Failed", *map(_failure, results.failures))


def _failure(one: Any) -> str:
    words = f"<pre>{visible(one.words)}</pre>" if one.words else ""
    where = visible(f"{one.point}, round {one.round + 1}")
    return f"<p><b>{where}</b>: {visible(one.reason)}</p>{words}"


def _facts(meta: Mapping[str, Any]) -> str:
    rows = "".join(_fact(key, value) for key, value in meta.items() if key != "conditions")
    return f'<table class="facts">{rows}</table>'


def _fact(key: str, value: Any) -> str:
    if key in ("guests", "plugged") and isinstance(value, Mapping):
        cell = "".join(map(_words, value.items()))
    elif isinstance(value, Mapping):
        cell = visible(", ".join(f"{name} {_written(one)}" for name, one in value.items()))
    else:
        cell = visible(_written(value))
    return f"<tr><td>{visible(key)}</td><td>{cell}</td></tr>"


def _words(item: tuple[str, Any]) -> str:
    """The command line of a guest, or what was plugged into it for a point."""
    place, words = item
    line = shlex.join(map(str, words)) if isinstance(words, list | tuple) else str(words)
    return f"{visible(place)}<pre>{visible(line)}</pre>"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _table(head: Iterable[str], rows: Iterable[tuple[bool, list[str]]]) -> str:
    heads = "".join(f"<th>{visible(name)}</th>" for name in head)
    lines = "".join(
        f"<tr{' class=virtio' if virtio else ''}>"
        + "".join(f"<td>{visible(cell)}</td>" for cell in cells)
        + "</tr>"
        for virtio, cells in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
