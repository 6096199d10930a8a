"""Tables for a README: made of results, and put between two marks that stand in it.

    <!-- bench:begin -->
    <!-- bench:end -->

Between those, each of the two places, `devices` and `pyvirt`, gets marks of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pyvirt.bench import Results, labels
from pyvirt.bench.groups import Group, Line, groups
from pyvirt.bench.results import replace

END = "<!-- bench:end -->"


def put(path: Path, place: str, text: str) -> None:
    """Replace what stands in a file at a place; `ValueError` where it has no marks."""
    begin, end = f"<!-- bench:begin {place} -->", f"<!-- bench:end {place} -->"
    whole = path.read_text()
    if begin not in whole and whole.count(END) == 1:
        whole = whole.replace(END, f"{begin}\n{end}\n{END}")
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise ValueError(f"{path} must have <!-- bench:begin --> and then {END}, once each")
    head, _, rest = whole.partition(begin)
    tail = rest.partition(end)[2]
    replace(path, f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}".encode())


def devices(results: Results) -> str:
    """Figures and paired ratios with their intervals, where they come from, what they say."""
    found = groups(results)
    source = f"**{labels.accelerator(results.meta)}.** On {labels.source(results.meta)}."
    head = ("", "", "", "paired ratio", "interval", "rounds", "register accesses")
    rows = [cells for group in found for line in group.lines for cells in _cells(group, line)]
    notes = "\n\n".join(note.replace("*", "\\*") for note in labels.notes(results))
    return "\n\n".join([source, markdown(head, rows), notes])


def _cells(group: Group, line: Line) -> Iterator[tuple[str, ...]]:
    spread, ratio = line.spread, line.ratio
    yield (
        group.title,
        line.device,
        labels.quantity(spread.median, group.unit, network=group.network),
        "" if ratio is None else f"**{ratio.median:.2f}** x {group.baseline}",
        "" if ratio is None else f"{ratio.low:.2f} to {ratio.high:.2f} ({_sure(ratio.confidence)})",
        f"{spread.rounds}{chr(92) + '*' if spread.busy else ''}",
        "" if line.accesses is None else f"{line.accesses:.3g} / {group.cost.partition('/')[2]}",
    )


def _sure(confidence: float) -> str:
    return f"{confidence * 100:.0f} %"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is words, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Two spaces before it say that it belongs to the row above."""
    inner = "&nbsp;&nbsp;" if text.startswith("  ") else ""
    return inner + re.sub(r"\s+", " ", text.strip()).replace("|", "\\|")
