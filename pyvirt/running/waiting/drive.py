"""Turn a flow's steps into futures; how to wait for them is each face's own business."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from typing import Any, TypeAlias, TypeVar

from pyvirt.errors import TimedOut
from pyvirt.qmp.flow import Flow, OutOfTime, Step

T = TypeVar("T")

GRACE = 10.0
"""Seconds that a flow which is out of time, or interrupted, has to undo what it began."""

Begin: TypeAlias = Callable[[Step], Future[Any]]
Waits: TypeAlias = Generator[tuple[Future[Any], float | None], None, T]
"""What to wait for, and until when (`time.monotonic`)."""


def drive(flow: Flow[T], begin: Begin, timeout: float | None) -> Waits[T]:
    """All waits of `flow`, in order; returns what the flow returns.

    The face waits until each future is done before it asks for the next. It throws in
    `TimeoutError` when the time is up, or what interrupted it; the step is cancelled, the
    flow hears of it and may undo within `GRACE` seconds. Out of time again, it is closed.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    late: TimedOut | None = None
    try:
        step = next(flow)
        while True:
            future = _begun(begin, step)
            error: BaseException | None
            try:
                yield future, deadline
                error = _error(future)
            except GeneratorExit:
                raise
            except BaseException as interruption:
                error = interruption
                if isinstance(error, TimeoutError):
                    if late is not None:
                        raise late from None
                    late = TimedOut(_name(flow), timeout or 0.0)
                    error = OutOfTime(str(late))
                deadline = time.monotonic() + GRACE
            finally:
                future.cancel()
            step = flow.send(future.result()) if error is None else flow.throw(error)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    except OutOfTime:
        assert late is not None
        raise late from None
    finally:
        flow.close()


def _begun(begin: Begin, step: Step) -> Future[Any]:
    """The future of `step`; one that cannot begin has failed."""
    try:
        return begin(step)
    except Exception as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed


def _error(done: Future[Any]) -> BaseException | None:
    try:
        return done.exception()
    except CancelledError as cancelled:
        return cancelled


def _name(flow: Flow[Any]) -> str:
    return getattr(flow, "__name__", "flow")
