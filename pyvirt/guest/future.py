"""Settling futures that somebody else may have cancelled meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def settle(future: Future[T], value: T) -> None:
    """Give `future` its value, unless it is settled or cancelled already."""
    try:
        future.set_result(value)
    except InvalidStateError:
        return


def fail(future: Future[T], error: BaseException) -> None:
    """Give `future` its error, unless it is settled or cancelled already."""
    try:
        future.set_exception(error)
    except InvalidStateError:
        return


def then(future: Future[T], change: Callable[[T], U]) -> Future[U]:
    """What `change` makes of the value of `future`. Cancelling it cancels `future`."""
    changed: Future[U] = Future()

    def forward(done: Future[T]) -> None:
        if done.cancelled():
            changed.cancel()
            return
        try:
            settle(changed, change(done.result()))
        except BaseException as error:
            fail(changed, error)

    future.add_done_callback(forward)
    on_cancel(changed, future.cancel)
    return changed


def on_cancel(future: Future[T], act: Callable[[], object]) -> None:
    """Call `act` if somebody cancels `future`."""

    def check(done: Future[T]) -> None:
        if done.cancelled():
            act()

    future.add_done_callback(check)
