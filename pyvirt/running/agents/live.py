"""`spawn` and `connect`: streams that are read and written while they live."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from pyvirt.errors import own
from pyvirt.guest import process
from pyvirt.guest.future import fail, settle
from pyvirt.guest.process import Exit, GuestProcess, Reader
from pyvirt.guest.session import Handler


class Live(Handler):
    """Feeds the readers of a process, or of a connection, and settles its end."""

    def __init__(self) -> None:
        self.future: Future[GuestProcess] = Future()
        self.ended: Future[Exit] = Future()
        self.taken: Callable[[int, int], None]
        self.stream: process.Stream
        self.readers = {n: Reader(partial(self._consumed, n)) for n in (1, 2)}

    def started(self, pid: int) -> None:
        live = GuestProcess(pid, self.stream, self.readers[1], self.readers[2], self.ended)
        settle(self.future, live)
        if self.future.cancelled():
            self.stream.cancel()

    def data(self, channel: int, data: bytes) -> None:
        self.readers[channel].feed(data)

    def eof(self, channel: int) -> None:
        self.readers[channel].finish()

    def exited(self, exit: Exit) -> None:
        settle(self.ended, exit)

    def over(self) -> None:
        for reader in self.readers.values():
            reader.finish()
        settle(self.ended, Exit(0, None, 0.0))  # a socket has no other end

    def lost(self, error: Exception) -> None:
        for reader in self.readers.values():
            reader.finish(error)
        fail(self.future, own(error))
        fail(self.ended, own(error))

    def _consumed(self, channel: int, size: int) -> None:
        self.taken(channel, size)
