"""A live command in a guest, awaited."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from pyvirt.aio.monitor import done, result
from pyvirt.guest import process
from pyvirt.guest.process import CHUNK, LINE, Exit, Pieces


class Reader:
    """`pyvirt.guest.process.Reader`, awaited; itself an ``async for`` of pieces."""

    def __init__(self, reader: process.Reader) -> None:
        self._reader = reader

    async def chunk(self, size: int = CHUNK) -> bytes:
        """The next bytes, between 1 and `size` of them; empty at the end."""
        return await self._wait(self._reader.reading_some(size), None)

    async def read(self, size: int = -1, timeout: float | None = None) -> bytes:
        """Exactly `size` bytes, fewer only at the end; all of them when it is negative.

        `timeout` is for each piece of them; what had arrived stays for the next reader.
        """
        return await self._wait(self._reader.reading(size), timeout)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes as they come, in pieces, until the end."""
        while part := await self.chunk():
            yield part

    async def readline(self, limit: int = LINE, timeout: float | None = None) -> bytes:
        """The next line with its newline; without, at the end or after `limit` bytes."""
        return await self._wait(self._reader.reading_line(limit), timeout)

    async def lines(self) -> AsyncIterator[bytes]:
        """Line by line, each with its newline; the last one as it is."""
        while line := await self.readline():
            yield line

    async def _wait(self, pieces: Pieces, timeout: float | None) -> bytes:
        """Wait for each piece in this task."""
        try:
            future = next(pieces)
            while True:
                try:
                    await done(future, None if timeout is None else time.monotonic() + timeout)
                    data = future.result()
                except BaseException as error:
                    self._reader.forgo(future)
                    future = pieces.throw(error)
                else:
                    future = pieces.send(data)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class Writer:
    """`pyvirt.guest.process.Writer`, awaited."""

    def __init__(self, writer: process.Writer) -> None:
        self._writer = writer

    async def write(self, data: bytes, timeout: float | None = None) -> int:
        """Send `data`, waiting while the guest does not take it."""
        await result(self._writer.send(data), timeout, "writing to the command's input")
        return len(data)

    async def close(self) -> None:
        """End the stream; what was sent before still arrives."""
        self._writer.close()


class GuestProcess:
    """`pyvirt.guest.process.GuestProcess`, awaited: use it in an ``async with``."""

    def __init__(self, live: process.GuestProcess) -> None:
        self._live = live
        self.pid = live.pid
        self.stdin = Writer(live.stdin)
        self.stdout, self.stderr = Reader(live.stdout), Reader(live.stderr)

    async def wait(self, timeout: float | None = None) -> Exit:
        """How it ended. Its output may still be read afterwards."""
        await done(self._live.ended, None if timeout is None else time.monotonic() + timeout)
        return self._live.ended.result()

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to its whole process group. Done when the guest has sent it."""
        await result(self._live.kill(number), None, "a signal")

    async def resize(self, rows: int, columns: int) -> None:
        """Tell its pty a new size."""
        self._live.resize(rows, columns)

    async def close(self) -> None:
        """Kill it with its whole session, if it still runs, and drop its streams."""
        self._live.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._live)
