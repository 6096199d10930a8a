"""pyvirt's own agent in a guest, over a connected socket."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

from pyvirt.errors import ClosedError, GuestError, ProtocolError, own
from pyvirt.guest import protocol
from pyvirt.guest.carrier import LIMIT, Command, GuestInfo, Progress, Sink
from pyvirt.guest.facts import guest_info
from pyvirt.guest.future import fail, on_cancel, settle, then
from pyvirt.guest.process import Exit, GuestProcess
from pyvirt.guest.protocol import Fields, Kind, Tag, Value
from pyvirt.guest.result import Result
from pyvirt.guest.session import Handler, Hello, Session, Stream, failure
from pyvirt.running.agents import transfer
from pyvirt.running.agents.collect import Collect
from pyvirt.running.agents.live import Live
from pyvirt.running.waiting.background import background
from pyvirt.running.waiting.loop import loop

_RECEIVE = 256 << 10
_BUFFERS = 64  # in one sendmsg


class NativeAgent:
    """A `Carrier`. `explain` tells, when the connection ended, what is known of the reason.

    With `resync`, somebody else may have spoken to this agent before, and have been cut off
    in the middle of a frame.
    """

    def __init__(
        self,
        sock: socket.socket,
        explain: Callable[[], str],
        *,
        peer: str = protocol.PEER,
        resync: bool = False,
    ) -> None:
        sock.setblocking(False)
        self._sock, self._fd, self._explain, self._peer = sock, sock.fileno(), explain, peer
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._error: Exception | None = None
        self._out: deque[memoryview] = deque()
        self._blocked = False
        self._ready: Future[None] = Future()
        self._session = Session(os.urandom(8), resync)
        loop().add(self._fd, self._readable)
        with self._acting():
            pass

    # What a carrier offers

    @property
    def ready(self) -> Future[None]:
        """Done when the agent has answered."""
        return self._ready

    @property
    def hello(self) -> Hello | None:
        """What the agent said when it answered."""
        return self._session.hello

    @property
    def lost(self) -> bool:
        """Whether the connection has ended."""
        return self._error is not None

    def ping(self) -> Future[float]:
        """How long the agent took to answer, in seconds."""
        begun = time.perf_counter()
        with self._acting() as session:
            answer = session.ping()
        return then(answer, lambda _: time.perf_counter() - begun)

    def info(self) -> Future[GuestInfo]:
        """What the guest says of itself."""
        return then(self._applet("info"), lambda result: guest_info(Fields(result.stdout)))

    def run(
        self,
        command: Command,
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        limit: int = LIMIT,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        encoding: str | None = "utf-8",
    ) -> Future[Result[Any]]:
        """Run `command` to its end."""
        pairs = protocol.command_fields(command, env, cwd, user)
        sinks = {n: sink for n, sink in ((1, stdout), (2, stderr)) if sink is not None}
        handler = Collect(command, limit, sinks, encoding)
        return self._collect(handler, pairs, input, timeout)

    def spawn(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        pty: bool = False,
    ) -> Future[GuestProcess]:
        """Start `command` with live streams."""
        pairs = protocol.command_fields(command, env, cwd, user)
        if pty:
            pairs.append((Tag.PTY, b"\x18\0\x50\0"))  # 24 rows of 80
        return self._live(Kind.EXEC, pairs).future

    def connect(
        self, port: int, *, host: str = "127.0.0.1", protocol: str = "tcp"
    ) -> Future[GuestProcess]:
        """Connect, inside the guest, to a port; its `stdin` and `stdout` are the connection.

        `host` is an address, not a name; for `protocol` "unix" it is a path.
        """
        return self._live(Kind.CONNECT, _target(port, host, protocol)).future

    def dial(
        self, handler: Handler, port: int, *, host: str = "127.0.0.1", protocol: str = "tcp"
    ) -> Remote:
        """Connect, inside the guest, to a port; what happens then goes to `handler`."""
        return self._open(Kind.CONNECT, _target(port, host, protocol), handler)

    def put(
        self,
        source: BinaryIO | bytes,
        path: str,
        *,
        mode: int = 0o644,
        progress: Progress | None = None,
    ) -> Future[int]:
        """Write a file of the guest: whole under its name, or not at all. The bytes written."""
        live = self._transfer("put", path, f"{mode:o}")
        pieces, total = transfer.pieces(source)
        return self._background(live, lambda it: transfer.send(it, pieces, total, progress))

    def get(self, path: str, sink: BinaryIO, *, progress: Progress | None = None) -> Future[int]:
        """Read a file of the guest into `sink`. The bytes read."""
        live = self._transfer("get", path)
        return self._background(live, lambda it: transfer.receive(it, sink, progress))

    def put_tree(self, source: str, path: str, *, progress: Progress | None = None) -> Future[int]:
        """Copy a directory of the host to directory `path` of the guest. The bytes sent."""
        live = self._transfer("unpack", path)
        return self._background(live, lambda it: transfer.send_tree(it, source, progress))

    def get_tree(self, path: str, target: str, *, progress: Progress | None = None) -> Future[int]:
        """Copy directory `path` of the guest into a directory of the host. The bytes read."""
        live = self._transfer("pack", path)
        return self._background(live, lambda it: transfer.receive_tree(it, target, progress))

    def listening(self, port: int, protocol: str = "tcp") -> Future[bool]:
        """Whether something in the guest listens on `port`."""
        return then(self._applet("listening", protocol, str(port)), lambda result: result.ok)

    def fsfreeze(self) -> Future[int]:
        """Freeze the guest's file systems. How many. They thaw when the connection ends."""
        return then(self._applet("freeze"), _count)

    def fsthaw(self) -> Future[int]:
        """Let the guest write again. How many file systems were frozen."""
        return then(self._applet("thaw"), _count)

    def set_time(self, seconds: float | None = None) -> Future[None]:
        """Set the guest's clock to `seconds` since 1970, or to the host's."""
        nanoseconds = time.time_ns() if seconds is None else int(seconds * 1e9)
        return then(self._applet("settime", str(nanoseconds)), lambda _: None)

    def shutdown(self, mode: str = "powerdown") -> Future[None]:
        """Ask the guest to end: ``powerdown``, ``halt`` or ``reboot``. Done when it agreed."""
        handler = _Agreed()
        self._open(Kind.SHUTDOWN, [(Tag.ARG, mode)], handler, urgent=True)
        return handler.future

    def interrupt(self, error: Exception) -> None:
        """What ran in the guest is gone, and an agent may come again: all that is open fails
        with `error`, and `ready` begins anew.
        """
        with self._lock:
            if self._error is not None:
                return
            session, self._session = self._session, Session(os.urandom(8), resync=True)
            ready, self._ready = self._ready, Future()
        session.fail(error)
        fail(ready, own(error))
        with self._acting():
            pass

    def close(self, error: Exception | None = None) -> None:
        """Let go of the connection; what is open fails with `error`."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error or ClosedError(self._peer, "it was closed here")
            if self._pid == os.getpid():
                loop().remove(self._fd)
            self._sock.close()
            self._out.clear()
        self._session.fail(self._error)
        fail(self._ready, own(self._error))

    # Streams

    def _open(
        self,
        kind: Kind,
        pairs: list[tuple[Tag, Value]],
        handler: Handler,
        *,
        urgent: bool = False,
    ) -> Remote:
        payload = protocol.fields(pairs)
        with self._acting() as session:
            return Remote(self, session, session.open(kind, payload, handler, urgent=urgent))

    def _collect(
        self,
        handler: Collect,
        pairs: list[tuple[Tag, Value]],
        input: bytes | None = None,
        timeout: float | None = None,
        *,
        urgent: bool = False,
    ) -> Future[Result[Any]]:
        pairs += [(Tag.NO_INPUT, b"")] if input is None else []
        with self._acting():
            remote = self._open(Kind.EXEC, pairs, handler, urgent=urgent)
            handler.taken, handler.cancel = remote.taken, remote.cancel
            handler.start_drain()
            if input is not None:
                remote.send(input)
                remote.send_end()
        on_cancel(handler.future, remote.cancel)
        if timeout is not None:
            handler.limit_time(timeout)
        return handler.future

    def _live(self, kind: Kind, pairs: list[tuple[Tag, Value]]) -> Live:
        handler = Live()
        with self._acting():
            remote = self._open(kind, pairs, handler)
            handler.stream, handler.taken = remote, remote.taken
        on_cancel(handler.future, remote.cancel)
        return handler

    def _applet(self, name: str, *words: str) -> Future[Result[Any]]:
        """An internal command of the agent; its failure is a `GuestError`."""
        pairs: list[tuple[Tag, Value]] = [(Tag.APPLET, name)]
        pairs += [(Tag.ARG, word) for word in words]
        handler = Collect((name, *words), LIMIT, {}, None)
        return then(self._collect(handler, pairs, urgent=True), _checked)

    def _transfer(self, name: str, *words: str) -> Future[GuestProcess]:
        pairs: list[tuple[Tag, Value]] = [(Tag.APPLET, name)]
        pairs += [(Tag.ARG, word) for word in words]
        return self._live(Kind.EXEC, pairs).future

    def _background(
        self, live: Future[GuestProcess], work: Callable[[GuestProcess], int]
    ) -> Future[int]:
        """Move data on a thread; who cancels the future ends the transfer in the guest."""

        def run() -> int:
            with live.result() as process:
                return work(process)

        def watch(begun: Future[GuestProcess]) -> None:
            if not begun.cancelled() and begun.exception() is None:
                begun.result().ended.add_done_callback(lost)

        def lost(ended: Future[Exit]) -> None:
            # At once, though the thread may still wait for a file of the host.
            if error := ended.exception():
                fail(future, error)

        def stop() -> None:
            if not live.cancel():
                live.result().close()

        future = background("transfer", run)
        live.add_done_callback(watch)
        on_cancel(future, stop)
        return future

    # The connection

    @contextmanager
    def _acting(self) -> Iterator[Session]:
        """Do something with the session, and send what comes of it."""
        with self._lock:
            if self._error is None and self._pid != os.getpid():
                raise ClosedError(self._peer, "it belongs to the process that started it")
            if self._error is not None:
                raise own(self._error)
            yield self._session
            self._out.extend(map(memoryview, self._session.take()))
            if not self._blocked:
                self._send()

    def _send(self) -> None:
        """Send what the socket takes."""
        try:
            while self._out:
                parts = [self._out[i] for i in range(min(len(self._out), _BUFFERS))]
                self._sent(self._sock.sendmsg(parts, (), socket.MSG_NOSIGNAL))
            self._wait_to_send(False)
        except BlockingIOError:
            self._wait_to_send(True)
        except OSError:
            self._out.clear()  # the reading side learns of the end, and tells all

    def _sent(self, size: int) -> None:
        while size:
            part = self._out.popleft()
            if len(part) > size:
                self._out.appendleft(part[size:])
            size -= min(size, len(part))

    def _wait_to_send(self, wanted: bool) -> None:
        if wanted != self._blocked:
            self._blocked = wanted
            loop().writable(self._fd, self._writable if wanted else None)

    def _writable(self) -> None:
        with self._lock:
            if self._error is None:
                self._send()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:  # it ended while something of ours was unread
            data = b""
        if not data:
            self.close(ClosedError(self._peer, self._explain()))
            return
        try:
            with self._acting() as session:
                session.feed(data)
        except ProtocolError as error:
            self.close(error)
            return
        if session.hello is not None and not self._ready.done():
            settle(self._ready, None)


class Remote:
    """One stream of the agent, for any thread."""

    def __init__(self, agent: NativeAgent, session: Session, stream: Stream) -> None:
        self._agent, self._session, self._stream = agent, session, stream

    def send(self, data: bytes) -> Future[None]:
        with self._agent._acting():
            return self._stream.send(data)

    def send_whole(self, data: bytes) -> bool:
        with self._agent._acting():
            return self._stream.send_whole(data)

    def send_end(self) -> None:
        self._act(self._stream.send_end)

    def kill(self, number: int) -> Future[None]:
        """Done when the guest has answered a ping that went behind the signal."""
        with self._agent._acting() as session:
            self._stream.control(Kind.SIGNAL, number.to_bytes(4, "little"))
            return session.ping()

    def resize(self, rows: int, columns: int) -> None:
        size = rows.to_bytes(2, "little") + columns.to_bytes(2, "little")
        self._act(partial(self._stream.control, Kind.RESIZE, size))

    def cancel(self) -> None:
        self._act(partial(self._stream.control, Kind.CANCEL))

    def taken(self, channel: int, size: int) -> None:
        self._act(partial(self._stream.taken, channel, size))

    def _act(self, act: Callable[[], None]) -> None:
        """On a connection that has ended there is nothing left to do."""
        try:
            with self._agent._acting():
                act()
        except ClosedError:
            return


def _target(port: int, host: str, protocol: str) -> list[tuple[Tag, Value]]:
    return [(Tag.PROTOCOL, protocol), (Tag.HOST, host), (Tag.PORT, port)]


class _Agreed(Handler):
    """A request that has no answer but its end."""

    def __init__(self) -> None:
        self.future: Future[None] = Future()

    def over(self) -> None:
        settle(self.future, None)

    def lost(self, error: Exception) -> None:
        fail(self.future, error)


def _checked(result: Result[Any]) -> Result[Any]:
    """`result` of an applet that did what it should."""
    if result.exit_code == 1:
        raise failure(Fields(result.stderr))
    if result.exit_code is None:
        raise GuestError(result.command[0], f"it was ended by signal {result.signal}")
    return result


def _count(result: Result[Any]) -> int:
    return Fields(result.stderr).number(Tag.COUNT) or 0
