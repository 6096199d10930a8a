"""Values as small HTML tables for notebooks: escaped, without scripts or outside styles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_CELL = "text-align:left;vertical-align:top;padding:0.1em 0.8em 0.1em 0"


def card(title: str, rows: Mapping[str, Any]) -> str:
    """A heading and one row for each entry of `rows`; a list or tuple takes a line an item."""
    body = "".join(
        f'<tr><th style="{_CELL}">{escape(str(name))}</th>'
        f'<td style="{_CELL}">{_cell(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<div><strong>{escape(title)}</strong><table>{body}</table></div>"


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table with a heading for each column."""
    head = "".join(f'<th style="{_CELL}">{escape(str(name))}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{_cell(value)}</td>' for value in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text(output: str) -> str:
    """Program output as it is."""
    return f"<pre>{escape(output)}</pre>"


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "<br>".join(escape(str(item)) for item in value)
    return escape(str(value))
