"""`run`: a command whose output is kept, or poured into sinks, until it ends."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from pyvirt.errors import RunTimedOut
from pyvirt.guest.carrier import Command, Sink
from pyvirt.guest.future import fail, settle
from pyvirt.guest.process import Exit
from pyvirt.guest.result import Result, decoded
from pyvirt.guest.session import Handler
from pyvirt.running.waiting.background import background
from pyvirt.running.waiting.loop import Timer, loop

GRACE = 2.0
"""Seconds in which the guest must say that a command that was too late is gone."""


def words(command: Command) -> str | tuple[str, ...]:
    """`command` as a result names it."""
    return command if isinstance(command, str) else tuple(command)


class Collect(Handler):
    """Keeps what comes, up to `limit` bytes of each stream, and settles `future` at the end.

    `taken` gives credit back, `cancel` ends the command in the guest: both come from who
    runs it.
    """

    def __init__(
        self,
        command: Command,
        limit: int,
        sinks: Mapping[int, Sink],
        encoding: str | None,
    ) -> None:
        self.future: Future[Result[Any]] = Future()
        self.taken: Callable[[int, int], None]
        self.cancel: Callable[[], None]
        self._timer: Timer
        self._command, self._limit, self._encoding = words(command), limit, encoding
        self._kept = {1: bytearray(), 2: bytearray()}
        self._cut = False
        self._exit: Exit | None = None
        self._late: float | None = None
        self._drain = Drain(sinks) if sinks else None

    def data(self, channel: int, data: bytes) -> None:
        if self._drain is not None and channel in self._drain.sinks:
            self._drain.pour(channel, data)
            return
        kept = self._kept[channel]
        room = self._limit - len(kept)
        self._cut |= len(data) > room
        kept += data if len(data) <= room else data[: max(room, 0)]
        self.taken(channel, len(data))

    def exited(self, exit: Exit) -> None:
        self._exit = exit

    def over(self) -> None:
        if self._drain is None:
            self._finish()
        else:
            self._drain.end(self._finish)

    def lost(self, error: Exception) -> None:
        if self._drain is not None:
            self._drain.end(lambda: None)
        # What its own time limit cancelled before it began was late, not lost.
        fail(self.future, error if self._late is None else self._timed_out(True))

    def start_drain(self) -> None:
        """Begin to serve the sinks, now that `taken` and `cancel` are known."""
        if self._drain is not None:
            self._drain.start(self.taken, self._spilled)

    def limit_time(self, seconds: float) -> None:
        """Give it so many seconds, and the guest a little more to end it."""
        self._timer = loop().later(seconds, partial(self._time_is_up, seconds))
        self.future.add_done_callback(lambda _: self._timer.cancel())

    def _time_is_up(self, seconds: float) -> None:
        self._late = seconds
        self._timer = loop().later(GRACE, self._give_up)
        self.cancel()

    def _give_up(self) -> None:
        fail(self.future, self._timed_out(False))

    def _spilled(self, error: BaseException) -> None:
        """A sink raised: nobody wants the rest."""
        fail(self.future, error)
        self.cancel()

    def _timed_out(self, ended: bool) -> RunTimedOut:
        assert self._late is not None
        partial = self._result(Exit(0, None, self._late))
        return RunTimedOut(self._command, self._late, partial.stdout, partial.stderr, ended)

    def _finish(self) -> None:
        if self._late is not None:
            fail(self.future, self._timed_out(True))
        elif self._exit is not None:
            settle(self.future, self._result(self._exit))

    def _result(self, exit: Exit) -> Result[Any]:
        out, err = (bytes(self._kept[channel]) for channel in (1, 2))
        result = Result(
            self._command, exit.exit_code, exit.signal, out, err, exit.duration, self._cut
        )
        return decoded(result, self._encoding)


class Drain:
    """Pours data into sinks on a thread of its own, because a sink is a stranger's code.

    What waits here is bounded by the credit that is given back when a sink has returned.
    """

    def __init__(self, sinks: Mapping[int, Sink]) -> None:
        self.sinks = sinks
        self._queue: queue.SimpleQueue[tuple[int, bytes] | Callable[[], None]]
        self._queue = queue.SimpleQueue()

    def start(
        self, taken: Callable[[int, int], None], spilled: Callable[[BaseException], None]
    ) -> None:
        background("sinks", lambda: self._run(taken, spilled))

    def pour(self, channel: int, data: bytes) -> None:
        self._queue.put((channel, data))

    def end(self, last: Callable[[], None]) -> None:
        """Call `last` when everything was poured."""
        self._queue.put(last)

    def _run(
        self, taken: Callable[[int, int], None], spilled: Callable[[BaseException], None]
    ) -> None:
        broken = False
        while not callable(item := self._queue.get()):
            channel, data = item
            try:
                if not broken:
                    self.sinks[channel](data)
            except BaseException as error:
                broken = True
                spilled(error)
            taken(channel, len(data))
        item()
