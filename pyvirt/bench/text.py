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
    parts = [f"{shown(labels.accelerator(results.meta))}\n{shown(labels.source(results.meta))}"]
    found = groups(results, metric)
    parts += aligned([_block(group) for group in found])
    if not found:
        parts.append(f"No figures of {shown(metric)}." if metric else "Nothing was measured.")
    if results.failures:
        parts.append("\n".join(["Failed", *_failures(results)]))
    parts.append("\n".join(_wrapped(note) for note in labels.notes(results)))
    return "\n\n".join(parts)


def _block(group: Group) -> list[tuple[str, ...]]:
    head = (group.title, group.metric, "quartiles", _to(group), "rounds", group.cost)
    return [head, *(_cells(group, line) for line in group.lines)]


def _to(group: Group) -> str:
    return "" if group.baseline is None else f"times {group.baseline} ({group.sure})"


def _cells(group: Group, line: Line) -> tuple[str, ...]:
    spread = line.spread
    busy = "*" if spread.busy else ""
    return (
        f"  {line.device}",
        labels.quantity(spread.median, group.unit, network=group.network),
        labels.span(*spread.quartiles, group.unit, network=group.network)
        if spread.rounds > 1
        else "",
        str(line.ratio or ""),
        f"{spread.rounds}{busy}",
        "" if line.accesses is None else f"{line.accesses:.3g}",
    )


def aligned(blocks: Sequence[list[tuple[str, ...]]]) -> Iterator[str]:
    """Blocks of cells, with columns that stand below each other in all of them."""
    blocks = [[tuple(map(shown, row)) for row in block] for block in blocks]
    rows = [row for block in blocks for row in block]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for block in blocks:
        yield "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in block
        )


def _failures(results: Results) -> Iterable[str]:
    for one in results.failures:
        yield _wrapped(shown(f"{one.point}, round {one.round + 1}: {one.reason}"), "  ")


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")
