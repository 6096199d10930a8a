"""Futures around futures: with a limit, or of work on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from pyvirt.errors import TimedOut, own
from pyvirt.flows.steps import Within
from pyvirt.running.waiting.loop import loop
from pyvirt.running.wire.channel import settle

T = TypeVar("T")


def within(step: Within, detail: Callable[[], str]) -> Future[Any]:
    """A future with the outcome of `step.future`, or `TimedOut` after `step.seconds`.

    `step.future` may be shared by many who wait, so it goes on when this one is late or
    cancelled. `detail` says more about a wait that was too long.
    """
    outer: Future[Any] = Future()

    def late() -> None:
        if not outer.done():
            settle(outer, None, TimedOut(step.what, step.seconds or 0.0, detail()))

    def done(inner: Future[Any]) -> None:
        if timer is not None:
            timer.cancel()
        if not outer.done():
            error = inner.exception()
            settle(outer, None if error else inner.result(), error and own(error))

    timer = None if step.seconds is None else loop().later(step.seconds, late)
    step.future.add_done_callback(done)
    return outer


def aside(work: Callable[[], T]) -> Future[T]:
    """Do `work`, which may wait, on a thread of its own."""
    future: Future[T] = Future()

    def body() -> None:
        try:
            result = work()
        except BaseException as error:
            settle(future, None, error)
        else:
            settle(future, result)

    threading.Thread(target=body, name="pyvirt-aside", daemon=True).start()
    return future
