"""Drives a flow by itself, on whatever thread settles its steps, towards one future."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from threading import RLock
from typing import Any, TypeVar

from pyvirt.errors import TimedOut
from pyvirt.guest.future import fail, on_cancel, settle
from pyvirt.running.waiting.loop import Timer, loop

T = TypeVar("T")
S = TypeVar("S")

GRACE = 5.0
"""Seconds that a flow which is out of time, or cancelled, has to undo what it began."""


def conduct(
    flow: Generator[S, Any, T],
    begin: Callable[[S], Future[Any]],
    late: TimedOut | None = None,
) -> Future[T]:
    """What `flow` returns; `begin` turns each of its steps into a future.

    When the seconds of `late` have passed, `late` is thrown into the flow, and
    `CancelledError` when the future is cancelled; then the flow has `GRACE` seconds left,
    until the future fails with what was thrown.
    """
    return _Conductor(flow, begin, late).future


class _Conductor:
    def __init__(
        self,
        flow: Generator[Any, Any, Any],
        begin: Callable[[Any], Future[Any]],
        late: TimedOut | None,
    ) -> None:
        self.future: Future[Any] = Future()
        self._flow, self._begin = flow, begin
        self._lock = RLock()  # a step may be settled before `begin` returns
        self._turn = 0  # which step is awaited; the answer to an abandoned one is dropped
        self._step: Future[Any] | None = None
        self._timer: Timer | None = None
        self._error: BaseException | None = None
        self._over = False
        on_cancel(self.future, self._cancelled)
        if late is not None:
            self._timer = loop().later(late.seconds, partial(self._interrupt, late))
        self._go(lambda: next(self._flow))

    def _go(self, advance: Callable[[], Any]) -> None:
        with self._lock:
            self._turn += 1
            try:
                step = advance()
            except StopIteration as end:
                self._finish(partial(settle, self.future, end.value))
                return
            except BaseException as error:
                self._finish(partial(fail, self.future, error))
                return
            try:
                begun = self._begin(step)
            except Exception as error:
                begun = Future()
                begun.set_exception(error)
            self._step = begun
            begun.add_done_callback(partial(self._done, self._turn))

    def _done(self, turn: int, begun: Future[Any]) -> None:
        with self._lock:
            if turn != self._turn:
                return
            error = begun.exception()
            if error is None:
                self._go(lambda: self._flow.send(begun.result()))
            else:
                self._go(lambda: self._flow.throw(error))

    def _cancelled(self) -> None:
        # Not on the canceller's thread: it may hold locks, and the flow goes on elsewhere.
        loop().soon(partial(self._interrupt, CancelledError()))

    def _interrupt(self, error: BaseException) -> None:
        with self._lock:
            if self._over:
                return
            self._abandon()
            self._error = error
            self._timer = loop().later(GRACE, self._give_up)
            self._go(lambda: self._flow.throw(error))

    def _abandon(self) -> None:
        """Nobody waits for the step that was begun; its answer is dropped."""
        self._turn += 1
        if self._step is not None:
            self._step.cancel()

    def _give_up(self) -> None:
        with self._lock:
            self._abandon()
            with suppress(RuntimeError):  # it has more to undo, and no time for it
                self._flow.close()
        assert self._error is not None
        fail(self.future, self._error)

    def _finish(self, tell: Callable[[], None]) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        tell()
