"""What a command says: text for people, or with ``--json`` one document for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pyvirt.errors import PyvirtError, shown

#: The variable that asks for tracebacks of what nobody expected.
TRACEBACK = "PYVIRT_TRACEBACK"

C = TypeVar("C", bound=Callable[..., Any])


class Output:
    """Whether ``--json`` was asked for."""

    def __init__(self) -> None:
        self.json = False

    def document(self, value: Any) -> None:
        """The one document of this run."""
        click.echo(json.dumps(value, indent=2))

    def fault(self, error: BaseException) -> None:
        """What went wrong, as the document: its kind, its sentence and its facts."""
        if self.json:
            facts = {key: value for key, value in vars(error).items() if _is_plain(value)}
            kind = type(error).__name__
            self.document({"error": {"type": kind, "message": sentence(error), **facts}})


def json_option(command: C) -> C:
    """Adds ``--json``, and gives the command its `Output` first."""

    def wanted(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.ensure_object(Output).json = value

    option = click.option(
        "--json", is_flag=True, is_eager=True, expose_value=False, callback=wanted,
        help="Print one JSON document instead of text.",
    )  # fmt: skip
    return option(click.pass_obj(command))  # type: ignore[return-value]


def sentence(error: BaseException) -> str:
    """An error in one line."""
    words = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, OSError) and error.strerror and not isinstance(error, PyvirtError):
        words = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    words = shown(words)  # A file may be called anything, and so may what is inside of it.
    if isinstance(error, PyvirtError | OSError | click.ClickException) and words:
        return words
    kind = type(error).__name__
    return f"unexpected {kind}{f': {words}' if words else ''} ({TRACEBACK}=1 shows where)"


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns under each other; the last may be as long as it likes."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    )


def size(bytes_: int) -> str:
    """`bytes_` as people say it."""
    number, unit = float(bytes_), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | None)
