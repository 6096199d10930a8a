"""A shell on a serial console, for guests in which no agent answers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from pyvirt.errors import TimedOut
from pyvirt.guest.carrier import Command
from pyvirt.guest.future import settle
from pyvirt.guest.login import LIMIT, Hear, Run, Talk, Type, login
from pyvirt.guest.result import Result
from pyvirt.running.conduct import conduct

T = TypeVar("T")


class Line(Protocol):
    """What is needed of a console."""

    def write(self, data: str) -> None: ...
    def expect(self, pattern: str) -> Future[Any]: ...


class SerialShell:
    """Runs commands, one after another, through `console`.

    Slow, and at most 128 KiB of each stream come back; but it needs nothing of the guest
    except a getty or a shell on its serial port.
    """

    def __init__(self, console: Line) -> None:
        self._console = console
        self._token = f"pyvirt{secrets.token_hex(6)}"

    def login(
        self, user: str = "root", password: str | None = None, *, timeout: float | None = None
    ) -> Future[None]:
        """Get to a shell. `GuestError` when the guest refuses."""
        late = TimedOut(f"login as {user}", timeout) if timeout is not None else None
        return self._converse(login(user, password, self._token), late)

    def run(
        self,
        command: Command,
        *,
        input: bytes = b"",
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        limit: int = LIMIT,
        encoding: str | None = "utf-8",
    ) -> Future[Result[Any]]:
        """Run `command` to its end, as a carrier does."""
        run = Run(command, self._token, input, env, cwd, user, min(limit, LIMIT), encoding)
        late = TimedOut(repr(run.name), timeout) if timeout is not None else None
        return self._converse(run.talk(time.perf_counter), late)

    def _converse(self, talk: Talk[T], late: TimedOut | None) -> Future[T]:
        return conduct(talk, self._begin, late)

    def _begin(self, step: Type | Hear) -> Future[Any]:
        if isinstance(step, Hear):
            return self._console.expect(step.pattern)
        typed: Future[None] = Future()
        self._console.write(step.text)
        settle(typed, None)
        return typed
