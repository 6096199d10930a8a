"""Values as small HTML tables for notebooks: escaped, without scripts or outside styles.

Much of what is shown comes from guests, which may write what they like: what is no text is
made visible, and only so much of it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

#: Characters of one cell; a notebook keeps them all in its file.
LIMIT = 20_000

_CELL = "text-align:left;vertical-align:top;padding:0.1em 0.8em 0.1em 0"
_PRE = "margin:0;white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate"

# Controls and the marks that turn text around, which would hide what stands there; and
# halves of surrogate pairs, which no notebook can store.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Output(str):
    """Program output, which is shown as it is, line by line."""

    __slots__ = ()


def card(title: str, rows: Mapping[str, Any]) -> str:
    """A heading and one row for each entry of `rows`; a list or tuple takes a line an item."""
    body = "".join(f"<tr>{_head(name)}<td style='{_CELL}'>{_cell(rows[name])}</td></tr>"
                   for name in rows)  # fmt: skip
    return f"<div><strong>{visible(title)}</strong><table>{body}</table></div>"


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table with a heading for each column."""
    head = "".join(map(_head, columns))
    body = "".join(
        "<tr>" + "".join(f"<td style='{_CELL}'>{_cell(value)}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text(output: str) -> str:
    """Program output as it is."""
    return f"<pre style='{_PRE}'>{visible(output)}</pre>"


def visible(value: Any) -> str:
    """A value as escaped text, cut to `LIMIT` characters, with nothing hidden in it."""
    whole = str(value).replace("\r\n", "\n")
    rest = len(whole) - LIMIT
    shown = escape(_HIDDEN.sub(_picture, whole[:LIMIT]))
    return f"{shown} <em>… {rest} more characters</em>" if rest > 0 else shown


def _picture(match: re.Match[str]) -> str:
    """What stands for a character that would not be seen (␀ for NUL)."""
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


def _head(name: str) -> str:
    return f"<th style='{_CELL}'>{visible(name)}</th>"


def _cell(value: Any) -> str:
    if isinstance(value, Output):
        return text(value)
    if isinstance(value, list | tuple):
        return "<br>".join(map(visible, value))
    return visible(value)
