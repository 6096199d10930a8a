"""A live command over the QEMU guest agent, which has no streams of its own.

Its output goes to files in the guest, which are read as they grow: what nobody reads yet
waits there. Its input is brought by short-lived commands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import RLock
from typing import Any

from pyvirt.errors import ClosedError, UnsupportedError
from pyvirt.guest import qga_flows, qga_live
from pyvirt.guest.future import fail, settle
from pyvirt.guest.process import Exit
from pyvirt.guest.qga import PEER
from pyvirt.guest.qga_live import Spawned
from pyvirt.guest.session import Handler
from pyvirt.qmp.flow import Flow

WINDOW = 1 << 20  # bytes of each stream that may be here, untaken

Conduct = Callable[[Flow[Any]], Future[Any]]


class QgaStream:
    """Feeds `handler` with what a command does, and acts on the command."""

    def __init__(self, conduct: Conduct, handler: Handler, clock: Callable[[], float]) -> None:
        self._conduct, self._handler, self._clock = conduct, handler, clock
        self._begun = clock()
        self._live: Spawned | None = None
        self._left = {1: WINDOW, 2: WINDOW}
        self._input: deque[tuple[bytes | None, Future[None]]] = deque()
        self._feeding = self._over = self._cancelled = False
        # Callers come from any thread, and answers from the loop's.
        self._lock = RLock()

    def start(self, words: list[str]) -> None:
        """Start the command."""
        self._conduct(qga_live.spawn(words)).add_done_callback(self._started)

    def send(self, data: bytes) -> Future[None]:
        return self._queue(data)

    def send_end(self) -> None:
        self._queue(None)

    def kill(self, number: int) -> Future[None]:
        if self._live is None or self._over:
            nothing: Future[None] = Future()
            nothing.set_result(None)
            return nothing
        return self._conduct(qga_flows.kill(self._live.pid, number))

    def resize(self, rows: int, columns: int) -> None:
        raise UnsupportedError("a terminal", PEER)

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            self.kill(9)

    def taken(self, channel: int, size: int) -> None:
        with self._lock:
            self._left[channel] += size

    def _started(self, begun: Future[Spawned]) -> None:
        if error := begun.exception():
            self._lost(error)
            return
        with self._lock:
            self._live = begun.result()
            if self._cancelled:
                self.kill(9)
        self._handler.started(self._live.pid)
        following = qga_live.follow(self._live, self._left.__getitem__, self._feed)
        self._conduct(following).add_done_callback(self._ended)
        self._next_input()

    def _feed(self, channel: int, data: bytes) -> None:
        with self._lock:
            self._left[channel] -= len(data)
        self._handler.data(channel, data)

    def _ended(self, followed: Future[dict[str, Any]]) -> None:
        if error := followed.exception():
            self._lost(error)
            return
        status, duration = followed.result(), self._clock() - self._begun
        self._drop_input(ClosedError("the command's input", "nobody reads it"))
        self._handler.eof(1)
        self._handler.eof(2)
        self._handler.exited(Exit(status.get("exitcode"), status.get("signal"), duration))
        assert self._live is not None
        removed = self._conduct(qga_live.remove(self._live))
        removed.add_done_callback(lambda _: self._handler.over())

    def _lost(self, error: BaseException) -> None:
        reason = error if isinstance(error, Exception) else ClosedError(PEER, str(error))
        self._drop_input(reason)
        self._handler.lost(reason)

    def _queue(self, data: bytes | None) -> Future[None]:
        future: Future[None] = Future()
        with self._lock:
            if not self._over:
                self._input.append((data, future))
                self._next_input()
                return future
        fail(future, ClosedError("the command's input", "nobody reads it"))
        return future

    def _next_input(self) -> None:
        """One piece after the other, in order."""
        if self._live is None or self._feeding or not self._input:
            return
        self._feeding = True
        data, future = self._input.popleft()
        flow = qga_live.end_input(self._live) if data is None else qga_live.feed(self._live, data)
        self._conduct(flow).add_done_callback(partial(self._fed, future))

    def _fed(self, future: Future[None], done: Future[None]) -> None:
        if error := done.exception():
            fail(future, error)
        else:
            settle(future, None)
        with self._lock:
            self._feeding = False
            self._next_input()

    def _drop_input(self, error: Exception) -> None:
        with self._lock:
            self._over = True
            waiting = [future for _, future in self._input]
            self._input.clear()
        for future in waiting:
            fail(future, error)
