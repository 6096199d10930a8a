"""The blocking face of QMP: give commands, hear events, run flows."""

from __future__ import annotations

import itertools
import socket
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from pyvirt.errors import ClosedError, ProtocolError, PyvirtError, TimedOut, own
from pyvirt.qmp.commands import Commands
from pyvirt.qmp.event import Event
from pyvirt.qmp.flow import Command, Flow, Pause, Step, Until
from pyvirt.qmp.protocol import LIMIT, Greeting, Protocol, encode
from pyvirt.qmp.schema import Schema
from pyvirt.running.address import Address, dial
from pyvirt.running.channel import Channel, Request, settle
from pyvirt.running.drive import Waits, drive
from pyvirt.running.events import Events, Hub, Match, Past
from pyvirt.running.loop import loop

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that a command may take unless its caller says otherwise."""

_REDIAL_FIRST, _REDIAL_MOST = 0.05, 2.0  # seconds between two tries to reconnect
_DIAL = 0.5  # seconds for one of these tries: it is the loop's thread that waits
_BUSY = "a monitor serves one client at a time, is there another?"


class Monitor:
    """A QMP monitor, reached through a connected socket that belongs to it from now on.

    It negotiates by itself; commands given before that is done wait. `ready` is the future
    of its greeting. `explain` is asked why the peer is gone, and must answer at once; what
    it says is in the `ClosedError` that all who wait get. `oob` asks for out-of-band
    commands. `size` bounds the bytes of one message. `reconnect` is where to dial again when
    the connection ends. All methods may be called from any thread, and from threads in which
    an event loop runs; only callbacks of its own futures must not wait for it.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        oob: bool = False,
        explain: Callable[[], str] | None = None,
        peer: str = "QEMU",
        size: int = LIMIT,
        reconnect: Address | None = None,
    ) -> None:
        self.peer = peer
        self.ready: Future[Greeting] = Future()
        self.greeting: Greeting | None = None
        self.reconnected = 0
        self.schema: Schema | None = None
        self._oob, self._explain, self._size = oob, explain, size
        self._address = reconnect
        self._redial = _REDIAL_FIRST
        self._lock = threading.RLock()
        self._error: PyvirtError | None = None
        self._closing = self._settled = False
        self._silent = True
        self._held: list[Request] = []
        self._numbers = itertools.count(1)
        self._hub = Hub(self._want)
        self._lost = 0  # unwanted events of earlier connections
        self._channel: Channel | None = None
        self._attach(sock)

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
        deadline = None if timeout is None else time.monotonic() + timeout
        again = address if reconnect else None
        sock = dial(address, timeout)
        monitor = cls(sock, oob=oob, explain=explain, peer=peer, size=size, reconnect=again)
        return monitor._started(None if deadline is None else deadline - time.monotonic())

    @property
    def closed(self) -> bool:
        return self._error is not None

    @property
    def unheard(self) -> int:
        """How many events arrived for which nobody listened."""
        channel = self._channel
        return self._lost + (channel.protocol.unwanted if channel else 0)

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
        return self._wait(self.ask(name, arguments, fds, oob=oob), timeout, name)

    def fetch(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = PATIENCE,
    ) -> bytes:
        """Run one command and return what it returned as JSON, not decoded."""
        reply = self._wait(self.ask(name, arguments, raw=True), timeout, name)
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

    def begin(self, step: Step) -> Future[Any]:
        """Begin `step`; its future may be cancelled. An `Until` hears events from now on."""
        if isinstance(step, Until):
            past = Past(step.names)
            self._listen(past)
            future = past.wait(step)
            future.add_done_callback(lambda _: self._hub.remove(past))
            return future
        return self._begin(step, Past())

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

    def events(
        self, *names: str, match: Match = None, size: int = 1024, timeout: float | None = None
    ) -> Events:
        """A queue of the events to come: of these names (else all), with data like `match`.

        It holds `size` events and counts what it `dropped`. Iterating it waits at most
        `timeout` seconds for each event.
        """
        events = Events(self._hub, names, match, size, timeout)
        if self._error is not None:
            events.end(self._error, self._closing)
        return events

    def _wait(self, future: Future[T], timeout: float | None, what: str) -> T:
        """The result of a future of this monitor; `TimedOut` names `what` and cancels it."""
        try:
            self._await(future, None if timeout is None else time.monotonic() + timeout)
        except TimeoutError:
            if future.cancel():
                raise TimedOut(what, timeout or 0.0) from None
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def close(self) -> None:
        """End the connection; all who wait get `ClosedError`. QEMU itself goes on."""
        channel = self._channel
        self._closing = True
        if channel is not None:
            channel.shut()
        if channel is None or not channel.foreign:
            self._finish(ClosedError(self.peer, "closed by its owner"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        channel = getattr(self, "_channel", None)
        if channel is not None and channel.error is None and not channel.foreign:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            channel.sever()

    def __repr__(self) -> str:
        if self._error is not None:
            state = f"closed: {self._error}"
        elif self.greeting is None:
            state = "not ready"
        else:
            release = self.greeting.version.qemu
            state = f"{release.major}.{release.minor}.{release.micro}"
        return f"<Monitor of {self.peer} {state}>"

    # What both faces are made of --------------------------------------------------------

    def ask(
        self,
        name: str,
        arguments: Mapping[str, Any] | None,
        fds: Iterable[int] = (),
        *,
        raw: bool = False,
        oob: bool = False,
    ) -> Request:
        """Send a command, or hold it until that is possible: the future of its reply."""
        number = next(self._numbers) if oob else None
        request = Request(name, encode(name, arguments, number), fds, raw=raw, oob=number)
        channel = self._channel
        if channel is not None:
            if channel.foreign:
                raise ClosedError(self.peer, "it belongs to the process that forked this one")
            channel.submit(request)
            return request
        with self._lock:
            if self._channel is None and self._error is None:
                request.keep_fds()
                self._held.append(request)
                return request
            channel = self._channel
        if channel is not None:
            channel.submit(request)
        else:
            request.settle(None, self._error and own(self._error))
        return request

    def unready(self, error: BaseException) -> BaseException:
        """`error`, with what may be the reason when nothing at all was heard."""
        if isinstance(error, TimedOut) and self._silent:
            return TimedOut(error.what, error.seconds, _BUSY)
        return error

    @contextmanager
    def waits(self, flow: Flow[T], timeout: float | None) -> Iterator[Waits[T]]:
        """What `flow` waits for, step by step; every event in the meantime is kept for it."""
        past = Past()
        self._listen(past)
        waits = drive(flow, partial(self._begin, past=past), timeout)
        try:
            yield waits
        finally:
            self._hub.remove(past)
            waits.close()

    # What the channel's reader calls ----------------------------------------------------

    def hear(self, channel: Channel, message: Greeting | Event) -> None:
        if isinstance(message, Event):
            self._hub.publish(message)
        else:
            self._negotiate(channel, message)

    def why(self, cause: Exception | None) -> PyvirtError:
        if isinstance(cause, ProtocolError | ClosedError):
            return cause
        if self._closing:
            return ClosedError(self.peer, "closed by its owner")
        known = self._explain() if self._explain is not None else ""
        return ClosedError(self.peer, known or _plainly(cause))

    def ended(self, channel: Channel, error: PyvirtError, unsent: list[Request]) -> None:
        with self._lock:
            self._lost += channel.protocol.unwanted
            again = self._address is not None and self.greeting is not None and not self._closing
            if again:
                self._channel = None
                self._held = unsent
        if again:
            loop().later(self._redial, self._dialler())
        else:
            self._finish(error, unsent)

    # Its own doings ---------------------------------------------------------------------

    def _attach(self, sock: socket.socket) -> None:
        """Speak on `sock` from now on."""
        protocol = Protocol(self.peer, size=self._size)
        with self._lock:
            self._channel = channel = Channel(sock, protocol, weakref.ref(self))
            held, self._held = self._held, []
        self._hub.renew()
        for request in held:
            channel.submit(request)

    def _negotiate(self, channel: Channel, greeting: Greeting) -> None:
        self._silent = False
        oob = self._oob and "oob" in greeting.capabilities
        arguments = {"enable": ["oob"]} if oob else None
        request = Request("qmp_capabilities", encode("qmp_capabilities", arguments))
        request.add_done_callback(partial(_negotiated, weakref.ref(self), channel, greeting))
        channel.submit(request, first=True)

    def _admitted(self, channel: Channel, greeting: Greeting) -> None:
        self._redial = _REDIAL_FIRST
        self.reconnected += self.greeting is not None
        if self.greeting != greeting:
            self.schema = None  # it is another QEMU
        self.greeting = greeting
        channel.admit()
        self._settle_ready(greeting)

    def _started(self, timeout: float | None) -> Self:
        """This monitor once it is ready; closed if it does not become so."""
        try:
            self._wait(self.ready, timeout, f"{self.peer}'s monitor")
        except BaseException as error:
            self.close()
            raise self.unready(error) from None
        return self

    def _begin(self, step: Step, past: Past) -> Future[Any]:
        match step:
            case Command():
                return self.ask(step.name, step.arguments, step.fds)
            case Until():
                return past.wait(step)
            case Pause():
                return _pause(step.seconds)
            case _:
                raise TypeError(f"a flow cannot yield {step!r}")

    def _listen(self, past: Past) -> None:
        self._hub.add(past)
        if self._error is not None:
            past.end(self._error, self._closing)

    def _await(self, future: Future[Any], deadline: float | None) -> None:
        """Return when `future` is done; raises `TimeoutError` when it is not in time."""
        if not future.done() and loop().here():
            raise RuntimeError("the I/O thread must not wait for what only it can bring")
        channel = self._channel
        # Only what this channel brings: a leader would not notice a timer.
        if channel is not None and (isinstance(future, Request) or future is self.ready):
            channel.lead(future, deadline)
        if not future.done():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            with suppress(TimeoutError, CancelledError):
                future.exception(left)
            if not future.done():
                raise TimeoutError

    def _want(self, names: Iterable[str] | None) -> None:
        channel = self._channel
        if channel is not None:
            channel.protocol.want(names)

    def _finish(self, error: PyvirtError, unsent: Iterable[Request] = ()) -> None:
        """No connection any more, and none to come."""
        with self._lock:
            if self._error is None:
                self._error = error
            held, self._held = [*unsent, *self._held], []
        for request in held:
            request.settle(None, own(self._error))
        self._settle_ready(None, own(self._error))
        self._hub.end(self._error, expected=self._closing)

    def _settle_ready(self, greeting: Greeting | None, error: PyvirtError | None = None) -> None:
        with self._lock:
            first, self._settled = not self._settled, True
        if first:
            settle(self.ready, greeting, error)

    def _dialler(self) -> Callable[[], None]:
        """Dials again on the loop's thread, for as long as somebody has this monitor."""
        reference = weakref.ref(self)

        def dial_again() -> None:
            monitor = reference()
            if monitor is not None and not monitor._closing:
                monitor._reconnect()

        return dial_again

    def _reconnect(self) -> None:
        assert self._address is not None
        try:
            self._attach(dial(self._address, _DIAL))
        except OSError:
            self._redial = min(2 * self._redial, _REDIAL_MOST)
            loop().later(self._redial, self._dialler())


def _negotiated(
    reference: weakref.ref[Monitor], channel: Channel, greeting: Greeting, reply: Future[Any]
) -> None:
    monitor = reference()
    if monitor is None or reply.cancelled():
        return
    if reply.exception() is None:
        monitor._admitted(channel, greeting)
    elif not monitor.closed:
        channel.shut()


def _pause(seconds: float) -> Future[None]:
    future: Future[None] = Future()
    timer = loop().later(seconds, lambda: settle(future, None))
    future.add_done_callback(lambda _: timer.cancel())
    return future


def _plainly(cause: Exception | None) -> str:
    return "it closed the connection" if cause is None else str(cause)
