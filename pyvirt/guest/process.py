"""A live command in a guest: its streams, its end, and signals to it.

The carrier feeds readers and drains writers; flow control bounds what waits in between, so
a command that writes faster than anybody reads is held back in the guest. Every wait exists
twice: as a future (`chunk`, `send`, `ended`), and blocking (`read`, `write`, `wait`).
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import Protocol, TypeAlias

from attrs import frozen

from pyvirt.errors import own

CHUNK = 256 << 10
LINE = 1 << 20  # bytes of a line that are waited for: a guest may never send a newline

Pieces: TypeAlias = Generator[Future[bytes], bytes, bytes]


@frozen
class Exit:
    """How a command ended: exactly one of `exit_code` and `signal` is set."""

    exit_code: int | None
    signal: int | None
    duration: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, with exit code 0."""
        return self.exit_code == 0


class Reader:
    """Bytes that come from the guest. One reader at a time."""

    def __init__(self, consumed: Callable[[int], None]) -> None:
        self._consumed = consumed
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._told = 0  # bytes at its head that flow control has counted as consumed
        self._over = False
        self._error: Exception | None = None
        self._waiting: tuple[Future[bytes], int] | None = None

    def chunk(self, size: int = CHUNK) -> Future[bytes]:
        """The next bytes, between 1 and `size` of them; empty at the end."""
        future: Future[bytes] = Future()
        with self._lock:
            if self._waiting is not None and not self._waiting[0].done():
                raise RuntimeError("another read of this stream is still waiting")
            self._waiting = (future, size)
        self._serve()
        return future

    def read(self, size: int = -1, timeout: float | None = None) -> bytes:
        """Exactly `size` bytes, fewer only at the end; all of them when it is negative.

        `timeout` is for each piece of them; what had arrived stays for the next reader.
        """
        return self._wait(self.reading(size), timeout)

    def __iter__(self) -> Iterator[bytes]:
        """The bytes as they come, in pieces, until the end."""
        return iter(lambda: self._wait(self.reading_some(), None), b"")

    def readline(self, limit: int = LINE, timeout: float | None = None) -> bytes:
        """The next line with its newline; without, at the end or after `limit` bytes."""
        return self._wait(self.reading_line(limit), timeout)

    def lines(self) -> Iterator[bytes]:
        """Line by line, each with its newline; the last one as it is."""
        return iter(self.readline, b"")

    # What `read` and `readline` wait for, one piece after the other: for every face.

    def reading(self, size: int = -1) -> Pieces:
        """The pieces of `read`."""
        whole = bytearray()
        try:
            while size and (part := (yield self.chunk(CHUNK if size < 0 else size))):
                whole += part
                size -= len(part) if size > 0 else 0
        except BaseException:
            self._put_back(bytes(whole))
            raise
        return bytes(whole)

    def reading_some(self, size: int = CHUNK) -> Pieces:
        """The next piece, of at most `size` bytes."""
        return (yield self.chunk(size))

    def reading_line(self, limit: int = LINE) -> Pieces:
        """The pieces of `readline`."""
        line = b""
        try:
            while len(line) < limit and (part := (yield self.chunk(limit - len(line)))):
                head, newline, rest = part.partition(b"\n")
                line += head + newline
                if newline:
                    self._put_back(rest)
                    break
        except BaseException:
            self._put_back(line)
            raise
        return line

    def forgo(self, future: Future[bytes]) -> None:
        """Nobody waits for this chunk any longer; if it arrived, the next reader gets it."""
        if not future.cancel() and future.exception() is None:
            self._put_back(future.result())

    # For the carrier

    def feed(self, data: bytes) -> None:
        """`data` arrived."""
        with self._lock:
            self._buffer += data
        self._serve()

    def finish(self, error: Exception | None = None) -> None:
        """Nothing follows, because of `error` when there is one."""
        with self._lock:
            if not self._over:
                self._over, self._error = True, error
        self._serve()

    def _wait(self, pieces: Pieces, timeout: float | None) -> bytes:
        """Wait for each piece on this thread."""
        try:
            future = next(pieces)
            while True:
                try:
                    data = future.result(timeout)
                except BaseException as error:
                    self.forgo(future)
                    future = pieces.throw(error)
                else:
                    future = pieces.send(data)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _put_back(self, data: bytes) -> None:
        """`data` was taken too early. The guest was told that there is room for it again."""
        with self._lock:
            self._buffer[:0] = data
            self._told += len(data)

    def _serve(self) -> None:
        with self._lock:
            if self._waiting is None or not (self._buffer or self._over):
                return
            (future, size), self._waiting = self._waiting, None
            if not future.set_running_or_notify_cancel():
                return
            data = self._take(size)
            known = min(self._told, len(data))
            self._told -= known
        if data or self._error is None:
            future.set_result(data)
        else:
            future.set_exception(own(self._error))
        if len(data) > known:
            self._consumed(len(data) - known)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


class Stream(Protocol):
    """What a carrier gives a `GuestProcess` to act with."""

    def send(self, data: bytes) -> Future[None]: ...
    def send_end(self) -> None: ...
    def kill(self, number: int) -> Future[None]: ...
    def resize(self, rows: int, columns: int) -> None: ...
    def cancel(self) -> None: ...


class Writer:
    """Bytes that go to the guest."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def send(self, data: bytes) -> Future[None]:
        """Done when flow control has let all of `data` out."""
        return self._stream.send(data)

    def write(self, data: bytes, timeout: float | None = None) -> int:
        """Send `data`, waiting while the guest does not take it."""
        self._stream.send(data).result(timeout)
        return len(data)

    def close(self) -> None:
        """End the stream; what was sent before still arrives."""
        self._stream.send_end()


class GuestProcess:
    """A live command. As a context manager it is killed at the end, if it still runs.

    With a pty, `stdout` carries the terminal and `stderr` is empty.
    """

    def __init__(
        self, pid: int, stream: Stream, stdout: Reader, stderr: Reader, ended: Future[Exit]
    ) -> None:
        self.pid = pid
        self.stdin = Writer(stream)
        self.stdout, self.stderr = stdout, stderr
        self.ended = ended
        self._stream = stream
        self._closed = False

    def wait(self, timeout: float | None = None) -> Exit:
        """How it ended. Its output may still be read afterwards."""
        return self.ended.result(timeout)

    def kill(self, number: int = signal.SIGKILL) -> Future[None]:
        """Send a signal to its whole process group. Done when the guest has sent it."""
        return self._stream.kill(number)

    def resize(self, rows: int, columns: int) -> None:
        """Tell its pty a new size."""
        self._stream.resize(rows, columns)

    def close(self) -> None:
        """Kill it with its whole session, if it still runs, and drop its streams."""
        self._closed = True
        self._stream.cancel()

    def __del__(self) -> None:
        if not self._closed and not self.ended.done():
            warnings.warn(f"{self!r} was never closed", ResourceWarning, 2, source=self)

    def __enter__(self) -> GuestProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        done = self.ended.done() and not self.ended.cancelled() and not self.ended.exception()
        return f"<GuestProcess {self.pid}: {self.ended.result() if done else 'running'}>"
