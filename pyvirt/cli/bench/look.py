"""Results that were kept: shown again, as pictures and reports, and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pyvirt.cli.output import Output, json_option

if TYPE_CHECKING:
    from pyvirt.bench import Results

C = TypeVar("C", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False)
_NEW = click.Path(dir_okay=False, path_type=Path)


def file_options(command: C) -> C:
    """``--html``, ``--svg`` and ``--png``."""
    for name, words in (
        ("png", "Write the picture as PNG (needs the package cairosvg)."),
        ("svg", "Write a picture."),
        ("html", "Write a report: one file with picture, figures and how they came about."),
    ):
        command = click.option(f"--{name}", metavar="FILE", type=_NEW, help=words)(command)
    return command


@click.command("show")
@click.argument("file", type=_FILE)
@click.option("--metric", metavar="NAME", help="Show this instead of throughput or latency.")
@file_options
@json_option
def show(
    output: Output,
    file: str,
    metric: str | None,
    html: Path | None,
    svg: Path | None,
    png: Path | None,
) -> None:
    """Show the results in FILE."""
    from pyvirt.bench import Results

    results = Results.load(file)
    if metric is not None and metric not in results.metrics:
        raise click.UsageError(f"{file} has no {metric!r}, but {', '.join(results.metrics)}.")
    tell(output, results, metric)
    write(results, html, svg, png, metric)


@click.command("compare")
@click.argument("before", metavar="A", type=_FILE)
@click.argument("after", metavar="B", type=_FILE)
@json_option
def compare(output: Output, before: str, after: str) -> None:
    """Say what is different in the results B from those in A.

    A verdict is given only where the noise allows it, and for what is comparable: the same
    host, accelerator and options.
    """
    from attrs import asdict

    from pyvirt.bench import Results

    found = Results.load(before).compare(Results.load(after))
    if output.json:
        changes = [asdict(change) for change in found.changes]
        output.document({"changes": changes, "differences": list(found.differences)})
    else:
        click.echo(str(found))


def tell(output: Output, results: Results, metric: str | None = None) -> None:
    """The table, or as JSON the ratios and medians."""
    if output.json:
        output.document(document(results, metric))
    else:
        click.echo(results.table(metric))


def document(results: Results, metric: str | None = None) -> dict[str, Any]:
    """For programs: ratios with their intervals, medians, failures and where they come from."""
    return {
        "meta": dict(results.meta),
        "ratios": [
            {
                **_fields(one, "point", "baseline", "metric", "median", "low", "high"),
                **_fields(one, "confidence", "rounds", "busy"),
            }
            for one in results.ratios(metric)
        ],
        "figures": [
            {
                **_fields(one, "point", "device", "workload", "metric", "unit", "median"),
                "quartiles": list(one.quartiles),
                "rounds": one.rounds,
                "busy": len(one.busy),
            }
            for one in results.spreads(metric)
        ],
        "failures": [_fields(one, "point", "round", "reason", "words") for one in results.failures],
    }


def _fields(value: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def write(
    results: Results,
    html: Path | None,
    svg: Path | None,
    png: Path | None,
    metric: str | None = None,
) -> None:
    """The files that were asked for."""
    from pyvirt.bench.results import replace

    if html is not None:
        replace(html, results.html().encode())
    if svg is not None:
        replace(svg, results.svg(metric).encode())
    if png is not None:
        results.png(png, metric)
