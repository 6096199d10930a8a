"""The blocking face of QMP: give commands, hear events, run flows."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Self, TypeVar

from pyvirt.errors import TimedOut
from pyvirt.qmp.commands import Commands
from pyvirt.qmp.flow import Flow
from pyvirt.qmp.protocol import LIMIT
from pyvirt.qmp.schema import Schema
from pyvirt.running.waiting.loop import loop
from pyvirt.running.wire.address import Address, dial
from pyvirt.running.wire.channel import Request
from pyvirt.running.wire.link import Link

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that a command may take unless its caller says otherwise."""


class Monitor(Link):
    """A QMP monitor, reached through a connected socket that belongs to it from now on.

    It negotiates by itself; commands given before that is done wait. `ready` is the future
    of its greeting. `explain` is asked why the peer is gone, and must answer at once; what
    it says is in the `ClosedError` that all who wait get. `oob` asks for out-of-band
    commands. `size` bounds the bytes of one message. `reconnect` is where to dial again when
    the connection ends. All methods may be called from any thread, and from threads in which
    an event loop runs; only callbacks of its own futures must not wait for it.
    """

    @classmethod
    def open(
        cls,
        sock: socket.socket,
        *,
        timeout: float | None = PATIENCE,
        oob: bool = False,
        explain: Callable[[], str] | None = None,
        peer: str = "QEMU",
        size: int = LIMIT,
    ) -> Self:
        """A monitor that has answered: QEMU's main loop runs."""
        monitor = cls(sock, oob=oob, explain=explain, peer=peer, size=size)
        return monitor._started(timeout)

    @classmethod
    def connect(
        cls,
        address: Address,
        *,
        reconnect: bool = False,
        timeout: float | None = PATIENCE,
        oob: bool = False,
        explain: Callable[[], str] | None = None,
        peer: str = "QEMU",
        size: int = LIMIT,
    ) -> Self:
        """A monitor that listens at `address`.

        With `reconnect` it is dialled again whenever the connection ends: what was under
        way then fails with `ClosedError`, later commands wait for the new connection, and
        event queues go on (with a gap).
        """
        deadline = _deadline(timeout)
        again = address if reconnect else None
        sock = dial(address, timeout)
        monitor = cls(sock, oob=oob, explain=explain, peer=peer, size=size, reconnect=again)
        return monitor._started(None if deadline is None else deadline - time.monotonic())

    def execute(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        fds: Iterable[int] = (),
        oob: bool = False,
        timeout: float | None = PATIENCE,
    ) -> Any:
        """Run one command and return what it returned.

        `fds` travel with it, for ``getfd`` and ``add-fd``. Out of band (`oob`) it overtakes
        others, if the monitor was opened with `oob` and the command allows it. A command
        that takes longer than `timeout` seconds goes on in QEMU; its reply is discarded.
        """
        return self._converse(self.request(name, arguments, fds, oob=oob), timeout)

    def fetch(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = PATIENCE,
    ) -> bytes:
        """Run one command and return what it returned as JSON, not decoded."""
        reply = self._converse(self.request(name, arguments, raw=True), timeout)
        assert isinstance(reply, bytes)
        return reply

    def learn(self, schema: Schema | None = None, *, timeout: float | None = PATIENCE) -> Schema:
        """The commands of this QEMU: as told (`schema`), as known already, or as it says."""
        if schema is None:
            schema = self.schema or Schema.decode(self.fetch("query-qmp-schema", timeout=timeout))
        self.schema = schema
        return schema

    @property
    def qmp(self) -> Commands[Any]:
        """All commands of this QEMU, completed and checked: ``monitor.qmp.query_block()``."""
        return Commands(self.learn, self.execute)

    def run(self, flow: Flow[T], timeout: float | None = None) -> T:
        """Run `flow` to its end and return what it returns.

        After `timeout` seconds `TimedOut` is thrown into it; it has `GRACE` more to undo.
        """
        with self.waits(flow, timeout) as waits:
            try:
                wait = next(waits)
                while True:
                    try:
                        self._await(*wait)
                    except BaseException as interruption:
                        wait = waits.throw(interruption)
                    else:
                        wait = next(waits)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self, timeout: float | None) -> Self:
        """This monitor once it is ready; closed if it does not become so."""
        try:
            self._wait(self.ready, timeout, f"{self.peer}'s monitor")
        except BaseException as error:
            self.close()
            raise self.unready(error) from None
        return self

    def _converse(self, request: Request, timeout: float | None) -> Any:
        """Send `request` and wait for what it returns."""
        channel = self._channel
        if channel is None or loop().here():
            return self._wait(self.submit(request), timeout, request.name)
        deadline = _deadline(timeout)
        try:
            channel.lead(request, deadline, request)
            if not request.done():  # another thread leads
                self._await(request, deadline)
        except BaseException as error:
            _give_up(request, error, timeout, request.name)
        return request.result()

    def _wait(self, future: Future[T], timeout: float | None, what: str) -> T:
        """The result of a future of this monitor; `TimedOut` names `what` and cancels it."""
        try:
            self._await(future, _deadline(timeout))
        except BaseException as error:
            _give_up(future, error, timeout, what)
        return future.result()

    def _await(self, future: Future[Any], deadline: float | None) -> None:
        """Return when `future` is done; raises `TimeoutError` when it is not in time."""
        if future.done():
            return
        if loop().here():
            raise RuntimeError("the I/O thread must not wait for what only it can bring")
        channel = self._channel
        # Only what this channel brings: a leader would not notice a timer.
        if channel is not None and (isinstance(future, Request) or future is self.ready):
            channel.lead(future, deadline)
        left = None
        if deadline is not None:
            left = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
        with suppress(TimeoutError, CancelledError):
            future.exception(left)
        if not future.done():
            raise TimeoutError


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _give_up(
    future: Future[Any], error: BaseException, timeout: float | None, what: str
) -> None:
    """Wait for `future` no longer, unless it was just done; raises what is to be told."""
    cancelled = future.cancel()
    if not isinstance(error, TimeoutError):
        raise error
    if cancelled:
        raise TimedOut(what, timeout or 0.0) from None
