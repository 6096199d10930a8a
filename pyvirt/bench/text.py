"""Results as a table for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pyvirt.bench import labels
from pyvirt.bench.groups import Group, Line, groups
from pyvirt.errors import shown

if TYPE_CHECKING:
    from pyvirt.bench.results import Results

WIDTH = 98


def table(results: Results, metric: str | None = None) -> str:
    """All groups below each other, then what failed, and what the figures mean."""
    parts = [f"{labels.accelerator(results.meta)}\n{labels.source(results.meta)}"]
    found = groups(results, metric)
    parts += aligned([_block(group) for group in found])
    if not found:
        parts.append("Nothing was measured." if metric is None else f"No figures of {metric}.")
    if results.failures:
        parts.append("\n".join(["Failed", *_failures(results)]))
    parts.append("\n".join(_wrapped(note) for note in labels.notes(results)))
    return "\n\n".join(parts)


def _block(group: Group) -> list[tuple[str, ...]]:
    head = (shown(group.title), group.metric, "quartiles", _to(group), "rounds", group.cost)
    return [head, *(_cells(group, line) for line in group.lines)]


def _to(group: Group) -> str:
    return "" if group.baseline is None else f"times {group.baseline} (95 % interval)"


def _cells(group: Group, line: Line) -> tuple[str, ...]:
    spread = line.spread
    lower, upper = (_said(group, value) for value in spread.quartiles)
    busy = "*" if spread.busy else ""
    return (
        f"  {shown(line.device)}",
        _said(group, spread.median),
        f"{lower} to {upper}" if spread.rounds > 1 else "",
        str(line.ratio or ""),
        f"{spread.rounds}{busy}",
        "" if line.accesses is None else f"{line.accesses:.3g}",
    )


def _said(group: Group, value: float) -> str:
    return labels.quantity(value, group.unit, network=group.network)


def aligned(blocks: Sequence[list[tuple[str, ...]]]) -> Iterator[str]:
    """Blocks of cells, with columns that stand below each other in all of them."""
    rows = [row for block in blocks for row in block]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for block in blocks:
        yield "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in block
        )


def _failures(results: Results) -> Iterable[str]:
    for one in results.failures:
        yield _wrapped(f"{one.point}, round {one.round + 1}: {shown(one.reason)}", "  ")


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")
