"""A shell on a serial console, for guests in which no agent answers: the last resort."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, BinaryIO, NoReturn, Protocol, TypeVar

from attrs import define, field

from pyvirt.errors import ClosedError, TimedOut, UnsupportedError, own
from pyvirt.guest import shell
from pyvirt.guest.carrier import Command, GuestInfo, Progress, Sink
from pyvirt.guest.future import fail, on_cancel, settle, then
from pyvirt.guest.login import LIMIT, Hear, Run, Talk, Type, login
from pyvirt.guest.process import GuestProcess
from pyvirt.guest.result import Result
from pyvirt.guest.shell import PEER, Script, Scripts
from pyvirt.running.agents import transfer, trees
from pyvirt.running.waiting.background import background
from pyvirt.running.waiting.conduct import conduct
from pyvirt.running.waiting.loop import loop

T = TypeVar("T")


class Line(Protocol):
    """What is needed of a console."""

    def write(self, data: str) -> None: ...
    def expect(self, pattern: str) -> Future[Any]: ...


@define(eq=False)
class _Turn:
    """A talk that waits until the talks before it are over."""

    talk: Talk[Any]
    late: TimedOut | None
    future: Future[Any] = field(factory=Future)  # what its caller waits for


class SerialShell:
    """A `Carrier` through `console`: it does one thing after another.

    Slow, and at most 128 KiB of each stream of a command come back; files have at most
    1 MiB. But it needs nothing of the guest except a getty or a shell on its serial port.
    The console's reader is its own while it works. A shell cannot tell a signal n from the
    exit code 128 + n; signals are told.
    """

    def __init__(self, console: Line) -> None:
        self._console = console
        self._token = f"pyvirt{secrets.token_hex(6)}"
        self._count = 0
        self._lock = threading.Lock()
        self._turns: deque[_Turn] = deque()
        self._current: _Turn | None = None
        self._error: Exception | None = None
        self._ready: Future[None] = Future()

    @property
    def ready(self) -> Future[None]:
        """Done when somebody has logged in."""
        return self._ready

    def login(
        self, user: str = "root", password: str | None = None, *, timeout: float | None = None
    ) -> Future[None]:
        """Get to a shell. `GuestError` when the guest refuses."""
        late = TimedOut(f"login as {user}", timeout) if timeout is not None else None
        entered = self._converse(login(user, password, self._token), late)
        return then(entered, lambda _: settle(self._ready, None))

    def ping(self) -> Future[float]:
        """How long the shell took to answer, in seconds."""
        begun = time.perf_counter()
        return then(self.run("true"), lambda _: time.perf_counter() - begun)

    def info(self) -> Future[GuestInfo]:
        """What the guest says of itself; users stay unknown."""
        return self._conduct(shell.info())

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
        if stdout is not None or stderr is not None:
            _refuse("output as it comes", "let the command write to a file, and get that")
        self._count += 1
        token = f"{self._token}n{self._count}"
        run = Run(command, token, input or b"", env, cwd, user, min(limit, LIMIT), encoding)
        late = TimedOut(repr(run.name), timeout) if timeout is not None else None
        return self._converse(run.talk(time.perf_counter), late)

    def spawn(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        pty: bool = False,
    ) -> Future[GuestProcess]:
        """It cannot: there is one terminal, and the shell has it."""
        _refuse("a live command", "use the console itself, or give the guest an agent")

    def put(
        self,
        source: BinaryIO | bytes,
        path: str,
        *,
        mode: int = 0o644,
        progress: Progress | None = None,
    ) -> Future[int]:
        """Write a small file of the guest: whole under its name, or not at all."""
        parts, total = transfer.pieces(source)
        count = transfer.Count(progress, total)
        return self._transfer(count, lambda: shell.put(parts, path, mode, count.add))

    def get(self, path: str, sink: BinaryIO, *, progress: Progress | None = None) -> Future[int]:
        """Read a small file of the guest into `sink`. The bytes read."""
        count = transfer.Count(progress, None)
        return self._transfer(count, lambda: shell.get(path, partial(_take, count, sink)))

    def put_tree(self, source: str, path: str, *, progress: Progress | None = None) -> Future[int]:
        """Copy a small directory of the host to directory `path` of the guest."""
        count = transfer.Count(progress, None)
        parts = trees.pack(source)
        return self._transfer(count, lambda: shell.put_tree(parts, path, _draft(), count.add))

    def get_tree(self, path: str, target: str, *, progress: Progress | None = None) -> Future[int]:
        """Copy a small directory of the guest into a directory of the host."""
        count = transfer.Count(progress, None)

        def flow() -> Scripts[None]:
            with tempfile.TemporaryFile() as archive:
                yield from shell.get_tree(path, _draft(), partial(_take, count, archive))
                archive.seek(0)
                trees.unpack(archive.read, target)

        return self._transfer(count, flow)

    def listening(self, port: int, protocol: str = "tcp") -> Future[bool]:
        """Whether something in the guest listens on `port`."""
        return self._conduct(shell.listening(port, protocol))

    def fsfreeze(self) -> Future[int]:
        """It cannot: the shell itself writes files."""
        _refuse("freezing file systems", "give the guest an agent")

    def fsthaw(self) -> Future[int]:
        """It cannot freeze either."""
        _refuse("thawing file systems", "give the guest an agent")

    def set_time(self, seconds: float | None = None) -> Future[None]:
        """Set the guest's clock to `seconds` since 1970, or to the host's; to the second."""
        now = int(time.time() if seconds is None else seconds)
        return then(self.run(["date", "-u", "-s", f"@{now}"]), lambda result: _none(result))

    def shutdown(self, mode: str = "powerdown") -> Future[None]:
        """Ask the guest to end: ``powerdown``, ``halt`` or ``reboot``."""
        word = {"powerdown": "poweroff", "halt": "halt", "reboot": "reboot"}[mode]
        return then(self.run(f"{word} >/dev/null 2>&1 &"), lambda result: _none(result))

    def interrupt(self, error: Exception) -> None:
        """What ran in the guest is gone, this shell with it: somebody has to log in again."""
        self.close(error)

    def close(self, error: Exception | None = None) -> None:
        """Use the console no more; what is open fails with `error`."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error or ClosedError(PEER, "it was closed here")
            turns = [*([self._current] if self._current else []), *self._turns]
            self._turns.clear()
        for turn in turns:
            fail(turn.future, own(self._error))
        ready, self._ready = self._ready, Future()
        fail(ready, own(self._error))
        fail(self._ready, own(self._error))

    # Taking turns

    def _converse(self, talk: Talk[T], late: TimedOut | None = None) -> Future[T]:
        turn = _Turn(talk, late)
        with self._lock:
            if self._error is not None:
                raise own(self._error)
            self._turns.append(turn)
        self._next()
        return turn.future

    def _next(self) -> None:
        """Begin the next talk, if none is going on."""
        with self._lock:
            if self._current is not None or not self._turns:
                return
            self._current = turn = self._turns.popleft()
        if turn.future.done():
            self._over()
            return
        done = conduct(self._until_over(turn.talk), self._begin, turn.late)
        on_cancel(turn.future, done.cancel)
        done.add_done_callback(partial(_pass_on, turn.future))

    def _until_over(self, talk: Talk[T]) -> Talk[T]:
        # A talk that is out of time, or cancelled, goes on until it has undone what it began.
        try:
            return (yield from talk)
        finally:
            loop().soon(self._over)

    def _over(self) -> None:
        with self._lock:
            self._current = None
        self._next()

    def _begin(self, step: Type | Hear) -> Future[Any]:
        if self._error is not None:
            raise own(self._error)
        if isinstance(step, Hear):
            return self._console.expect(step.pattern)
        typed: Future[None] = Future()
        self._console.write(step.text)
        settle(typed, None)
        return typed

    # Conversations that run scripts

    def _conduct(self, scripts: Scripts[T]) -> Future[T]:
        return conduct(scripts, self._run_script)

    def _run_script(self, script: Script) -> Future[Result[bytes]]:
        return self.run(script.command, input=script.input, encoding=None)

    def _transfer(self, count: transfer.Count, scripts: Callable[[], Scripts[None]]) -> Future[int]:
        """Move data on a thread, which may wait for the file at this end."""

        def run() -> int:
            transfer.drive(scripts(), self._run_script)
            return count.done

        future = background("transfer", run)
        future.add_done_callback(lambda done: count.stop() if done.cancelled() else None)
        return future


def _pass_on(outer: Future[Any], done: Future[Any]) -> None:
    if done.cancelled():
        outer.cancel()
    elif error := done.exception():
        fail(outer, error)
    else:
        settle(outer, done.result())


def _refuse(what: str, hint: str) -> NoReturn:
    raise UnsupportedError(what, PEER, hint)


def _none(result: Result[Any]) -> None:
    result.check()


def _take(count: transfer.Count, sink: BinaryIO, data: bytes) -> None:
    sink.write(data)
    count.add(len(data))


def _draft() -> str:
    """A name for a file in the guest that is nobody's."""
    return f"/tmp/.pyvirt-{secrets.token_hex(8)}"
