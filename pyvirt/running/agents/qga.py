"""The QEMU guest agent, over a connected socket: a carrier for any guest that has it."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, BinaryIO, TypeVar

from attrs import define, field

from pyvirt.errors import ClosedError, ProtocolError, TimedOut, UnsupportedError, own
from pyvirt.guest import qga, qga_facts, qga_files, qga_flows
from pyvirt.guest.carrier import LIMIT, Command, GuestInfo, Progress, Sink
from pyvirt.guest.future import fail, on_cancel, settle, then
from pyvirt.guest.process import GuestProcess
from pyvirt.guest.qga import PEER, Replies, Reply
from pyvirt.guest.result import Result
from pyvirt.qmp import flow as steps
from pyvirt.qmp.flow import Flow, Pause, Step
from pyvirt.running.agents import transfer, trees
from pyvirt.running.agents.collect import Collect
from pyvirt.running.agents.live import Live
from pyvirt.running.agents.qga_stream import QgaStream
from pyvirt.running.waiting.background import background
from pyvirt.running.waiting.conduct import conduct
from pyvirt.running.waiting.loop import Timer, loop

T = TypeVar("T")

SILENCE = 10.0
"""Seconds without an answer after which the agent is asked whether it was restarted."""

_RECEIVE = 256 << 10


@define(eq=False)
class _Owed:
    """An answer that the agent owes. `silent`: it says something only when it refuses."""

    future: Future[Any] = field(factory=Future)
    name: str = ""
    sync: int | None = None
    silent: bool = False


class QemuGuestAgent:
    """A `Carrier`. `explain` tells, when the connection ended, what is known of the reason.

    `run` keeps at most 16 MiB of each stream, as the agent does, and marks what was cut;
    give it sinks for more. It takes at most 32 MiB of input. Durations are the host's.
    `user` needs setpriv in the guest, trees need tar. There is no pty.
    """

    def __init__(
        self, sock: socket.socket, explain: Callable[[], str], *, peer: str = PEER
    ) -> None:
        sock.setblocking(False)
        self._sock, self._fd, self._explain, self._peer = sock, sock.fileno(), explain, peer
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._error: Exception | None = None
        self._out = bytearray()
        self._blocked = self._talking = False
        self._heard = 0.0
        self._watch: Timer | None = None
        self._ready: Future[None] = Future()
        self._replies = Replies()
        self._owed: deque[_Owed] = deque()
        self._held: list[tuple[_Owed, bytes]] = []
        loop().add(self._fd, self._readable)
        self._greet()

    # What a carrier offers

    @property
    def ready(self) -> Future[None]:
        """Done when the agent has answered."""
        return self._ready

    def execute(self, name: str, arguments: Mapping[str, Any] | None = None) -> Future[Any]:
        """Any command of the agent, by its own name: what it returns, or `GuestError`."""
        return self._request(steps.Command(name, arguments or {}))

    def ping(self) -> Future[float]:
        """How long the agent took to answer, in seconds."""
        begun = time.perf_counter()
        return then(self.execute("guest-ping"), lambda _: time.perf_counter() - begun)

    def info(self) -> Future[GuestInfo]:
        """What the guest says of itself."""
        return self._conduct(qga_facts.info())

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
        sinks = {n: sink for n, sink in ((1, stdout), (2, stderr)) if sink is not None}
        if sinks:
            handler = Collect(command, limit, sinks, encoding)
            return self._pour(handler, qga_flows.argv(command, env, cwd, user), input, timeout)
        run = qga_flows.Run(command, input, env, cwd, user, limit, encoding)
        late = None if timeout is None else TimedOut(repr(run.name), timeout)
        return self._conduct(run.flow(time.perf_counter), late)

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
        if pty:
            raise UnsupportedError("a terminal", PEER, "use pyvirt's agent, or the console")
        handler = Live()
        stream = QgaStream(self._conduct, handler, time.perf_counter)
        handler.stream, handler.taken = stream, stream.taken
        stream.start(qga_flows.argv(command, env, cwd, user))
        on_cancel(handler.future, stream.cancel)
        return handler.future

    def put(
        self,
        source: BinaryIO | bytes,
        path: str,
        *,
        mode: int = 0o644,
        progress: Progress | None = None,
    ) -> Future[int]:
        """Write a file of the guest: whole under its name, or not at all. The bytes written."""
        parts, total = transfer.pieces(source)
        count = transfer.Count(progress, total)
        return self._transfer(count, lambda: qga_files.put(parts, path, mode, count.add))

    def get(self, path: str, sink: BinaryIO, *, progress: Progress | None = None) -> Future[int]:
        """Read a file of the guest into `sink`. The bytes read."""
        count = transfer.Count(progress, None)
        return self._transfer(count, lambda: qga_files.get(path, partial(_take, count, sink)))

    def put_tree(self, source: str, path: str, *, progress: Progress | None = None) -> Future[int]:
        """Copy a directory of the host to directory `path` of the guest. The bytes sent."""
        count = transfer.Count(progress, None)
        parts = trees.pack(source)
        return self._transfer(count, lambda: qga_files.put_tree(parts, path, _draft(), count.add))

    def get_tree(self, path: str, target: str, *, progress: Progress | None = None) -> Future[int]:
        """Copy directory `path` of the guest into a directory of the host. The bytes read."""
        count = transfer.Count(progress, None)

        def flow() -> Flow[None]:
            with tempfile.TemporaryFile() as archive:
                yield from qga_files.get_tree(path, _draft(), partial(_take, count, archive))
                archive.seek(0)
                trees.unpack(archive.read, target)

        return self._transfer(count, flow)

    def listening(self, port: int, protocol: str = "tcp") -> Future[bool]:
        """Whether something in the guest listens on `port`."""
        return self._conduct(qga_facts.listening(port, protocol))

    def fsfreeze(self) -> Future[int]:
        """Freeze the guest's file systems. How many. Until they thaw most requests fail."""
        return self.execute("guest-fsfreeze-freeze")

    def fsthaw(self) -> Future[int]:
        """Let the guest write again. How many file systems were frozen."""
        return self.execute("guest-fsfreeze-thaw")

    def set_time(self, seconds: float | None = None) -> Future[None]:
        """Set the guest's clock to `seconds` since 1970, or to the host's."""
        nanoseconds = time.time_ns() if seconds is None else int(seconds * 1e9)
        return then(self.execute("guest-set-time", {"time": nanoseconds}), lambda _: None)

    def shutdown(self, mode: str = "powerdown") -> Future[None]:
        """Ask the guest to end: ``powerdown``, ``halt`` or ``reboot``. Done when it agreed."""
        # It answers only when it refuses, so a ping behind it tells that it did not.
        agreed = self._request(steps.Command("guest-shutdown", {"mode": mode}), silent=True)
        self.execute("guest-ping")
        return agreed

    def interrupt(self, error: Exception) -> None:
        """What ran in the guest is gone, and an agent may come again: all that is open fails
        with `error`, and `ready` begins anew.
        """
        with self._lock:
            if self._error is not None:
                return
            owed = self._forget()
            self._talking = False
            ready, self._ready = self._ready, Future()
            self._replies = Replies()
        _fail_all(owed, error)
        fail(ready, own(error))
        self._greet()

    def close(self, error: Exception | None = None) -> None:
        """Let go of the connection; what is open fails with `error`."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error or ClosedError(self._peer, "it was closed here")
            if self._pid == os.getpid():
                loop().remove(self._fd)
            self._sock.close()
            owed = self._forget()
        _fail_all(owed, self._error)
        fail(self._ready, own(self._error))

    # Conversations

    def _conduct(self, flow: Flow[T], late: TimedOut | None = None) -> Future[T]:
        return conduct(flow, self._begin, late)

    def _begin(self, step: Step) -> Future[Any]:
        if isinstance(step, steps.Command):
            return self._request(step)
        assert isinstance(step, Pause)
        future: Future[Any] = Future()
        loop().later(step.seconds, lambda: settle(future, None))
        return future

    def _pour(
        self, handler: Collect, words: list[str], input: bytes | None, timeout: float | None
    ) -> Future[Result[Any]]:
        stream = QgaStream(self._conduct, handler, time.perf_counter)
        handler.taken, handler.cancel = stream.taken, stream.cancel
        handler.start_drain()
        if timeout is not None:
            handler.limit_time(timeout)
        stream.start(words)
        if input is not None:
            stream.send(input)
        stream.send_end()
        on_cancel(handler.future, stream.cancel)
        return handler.future

    def _transfer(self, count: transfer.Count, flow: Callable[[], Flow[None]]) -> Future[int]:
        """Move data on a thread, which may wait for the file at this end."""

        def run() -> int:
            transfer.drive(flow(), self._begin)
            return count.done

        future = background("transfer", run)
        future.add_done_callback(lambda done: count.stop() if done.cancelled() else None)
        return future

    # The connection

    def _greet(self) -> None:
        number = secrets.randbits(31)
        with self._lock:
            owed = _Owed(name="guest-sync-delimited", sync=number)
            self._owed.append(owed)
            self._write(qga.sync(number))
        owed.future.add_done_callback(self._synced)

    def _synced(self, done: Future[Any]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        with self._lock:
            self._talking = True
            held, self._held = self._held, []
            for owed, data in held:
                self._owed.append(owed)
                self._write(data)
            ready = self._ready
        settle(ready, None)

    def _request(self, command: steps.Command, silent: bool = False) -> Future[Any]:
        owed = _Owed(name=command.name, silent=silent)
        data = qga.encode(command)
        with self._lock:
            if self._error is None and self._pid != os.getpid():
                raise ClosedError(self._peer, "it belongs to the process that started it")
            if self._error is not None:
                raise own(self._error)
            if self._talking:
                self._owed.append(owed)
                self._write(data)
            else:
                self._held.append((owed, data))
        return owed.future

    def _write(self, data: bytes) -> None:
        self._out += data
        self._heard = time.monotonic()
        if self._watch is None and self._talking:
            self._watch = loop().later(SILENCE, self._check_silence)
        if not self._blocked:
            self._send()

    def _send(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out, socket.MSG_NOSIGNAL)]
            wait = False
        except BlockingIOError:
            wait = True
        except OSError:
            self._out.clear()  # the reading side learns of the end, and tells all
            return
        if wait != self._blocked:
            self._blocked = wait
            loop().writable(self._fd, self._writable if wait else None)

    def _writable(self) -> None:
        with self._lock:
            if self._error is None:
                self._send()

    def _check_silence(self) -> None:
        """An agent that was restarted has forgotten what it owes, and says so by answering."""
        with self._lock:
            self._watch = None
            if self._error is not None or not self._owed or not self._talking:
                return
            silent = time.monotonic() - self._heard
            if silent >= SILENCE and not any(owed.sync for owed in self._owed):
                number = secrets.randbits(31)
                self._owed.append(_Owed(name="guest-sync-delimited", sync=number))
                self._write(qga.sync(number)[1:])
            else:
                self._watch = loop().later(SILENCE, self._check_silence)

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
            with self._lock:
                self._heard = time.monotonic()
                replies = self._replies.feed(data)
            for reply in replies:
                self._answer(reply)
        except ProtocolError as error:
            self.close(error)

    def _answer(self, reply: Reply) -> None:
        """Settle whom `reply` is for: the first who is owed one, or the sync it names."""
        with self._lock:
            done, lost = self._match(reply)
        _fail_all(lost, ClosedError(self._peer, "it was restarted and forgot the request"))
        for owed in done[:-1]:
            settle(owed.future, None)
        if done and reply.error is not None:
            fail(done[-1].future, qga.refused(done[-1].name, reply.error))
        elif done:
            settle(done[-1].future, reply.value)

    def _match(self, reply: Reply) -> tuple[list[_Owed], list[_Owed]]:
        """Who is settled now, the last of them by `reply` itself; and who never will be."""
        if reply.delimited:
            if not any(owed.sync == reply.value for owed in self._owed):
                return [], []  # an answer to a sync of somebody before us
            lost = []
            while (owed := self._owed.popleft()).sync != reply.value:
                lost.append(owed)
            return [owed], lost
        done = []
        while self._owed:
            done.append(self._owed.popleft())
            if not done[-1].silent or reply.error is not None:
                return done, []
        raise ProtocolError(PEER, "answered what was not asked", self._replies.offset)

    def _forget(self) -> list[_Owed]:
        owed = [*self._owed, *(one for one, _ in self._held)]
        self._owed.clear()
        self._held.clear()
        return owed


def _fail_all(owed: list[_Owed], error: Exception) -> None:
    for one in owed:
        fail(one.future, own(error))


def _take(count: transfer.Count, sink: BinaryIO, data: bytes) -> None:
    sink.write(data)
    count.add(len(data))


def _draft() -> str:
    """A name for a file in the guest that is nobody's."""
    return f"/tmp/.pyvirt-{secrets.token_hex(8)}"
