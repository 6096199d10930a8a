"""Work that waits for others' code or files, on a thread of its own.

Not a pool: a worker that waits for a guest that hangs must keep neither another's work nor
the end of the interpreter waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from pyvirt.guest.future import fail, settle

T = TypeVar("T")


def background(name: str, work: Callable[[], T]) -> Future[T]:
    """What `work` returns, or raises, on a new thread. Cancelling it does not stop the work."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            settle(future, work())
        except BaseException as error:
            fail(future, error)

    threading.Thread(target=run, name=f"pyvirt-{name}", daemon=True).start()
    return future
