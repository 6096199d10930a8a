"""Sections that Ctrl-C must not cut in two.

A thread that has sent a command without noting it, or taken bytes without handing them out,
leaves a stream that nobody can read any more. Only the main thread is ever interrupted; while
it is in such a section, SIGINT is noted and raised at the section's end.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # typeshed has no such module
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

# What `signal.signal` calls: without its enums it is ten times as fast, twice a command.
_install: Callable[[int, Any], Any] = _signal.signal
_installed: Callable[[int], Any] = _signal.getsignal
_SIGINT = int(signal.SIGINT)
_main = threading.main_thread


class Uninterrupted:
    """Holds SIGINT back in a ``with``, except while `waiting` is true."""

    __slots__ = ("_arrived", "_handler", "waiting")

    def __enter__(self) -> Self:
        self.waiting = self._arrived = False
        self._handler: Any = None
        if threading.get_ident() == _main().ident:
            handler = _installed(_SIGINT)
            if callable(handler):
                self._handler = handler
                _install(_SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handler is not None:
            _install(_SIGINT, self._handler)
            if self._arrived:
                signal.raise_signal(_SIGINT)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.waiting:
            self.waiting = False
            self._handler(number, frame)
        else:
            self._arrived = True
