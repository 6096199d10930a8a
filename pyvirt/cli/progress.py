"""A line on the terminal while something takes long; nothing where nobody looks."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

_WIDTH = 24


class Progress:
    """A line that is drawn over itself on `stream`, when that is a terminal.

    Called with what is being done and how much of it is done, as `VM.start` does; use it in
    a ``with``, and the line is gone at the end.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._drawn = False

    def __call__(self, what: str, done: float | None = None) -> None:
        if self._shown:
            self._draw(line(what, done, shutil.get_terminal_size().columns - 1))

    def clear(self) -> None:
        """Take the line away, before something else is printed."""
        if self._drawn:
            self._draw("")
            self._drawn = False

    def _draw(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()
        self._drawn = True

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


def line(what: str, done: float | None, width: int) -> str:
    """``downloading linux-image [#####     ]  45%``, cut to `width`."""
    if done is None:
        return f"{what} ..."[:width]
    full = round(max(0.0, min(1.0, done)) * _WIDTH)
    return f"{what} [{'#' * full:{_WIDTH}}] {done:4.0%}"[:width]
