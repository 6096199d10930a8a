"""A QMP connection that negotiates, reconnects and ends, beneath both faces of a monitor."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from pyvirt.errors import ClosedError, ProtocolError, PyvirtError, TimedOut, UnsupportedError, own
from pyvirt.qmp.event import Event
from pyvirt.qmp.flow import Command, Flow, Pause, Step, Until
from pyvirt.qmp.protocol import AHEAD, AHEAD_OF_ANY, LIMIT, Greeting, Protocol, encode
from pyvirt.qmp.schema import Schema
from pyvirt.running.waiting.drive import Waits, drive
from pyvirt.running.waiting.loop import loop
from pyvirt.running.wire.address import Address, dial
from pyvirt.running.wire.channel import Channel, Request, settle
from pyvirt.running.wire.events import Events, Hub, Match, Past

T = TypeVar("T")

_REDIAL_FIRST, _REDIAL_MOST = 0.05, 2.0  # seconds between two tries to reconnect
_DIAL = 10.0  # seconds for one of these tries
_BUSY = "a monitor serves one client at a time, is there another?"


class Link:
    """One monitor, over one connection or, with `reconnect`, several in turn."""

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
        self._pid = os.getpid()
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

    @property
    def closed(self) -> bool:
        return self._error is not None

    @property
    def unheard(self) -> int:
        """How many events arrived for which nobody listened."""
        channel = self._channel
        return self._lost + (channel.protocol.unwanted if channel else 0)

    def begin(self, step: Step) -> Future[Any]:
        """Begin `step`; its future may be cancelled. An `Until` hears events from now on."""
        if isinstance(step, Until):
            past = Past(step.names)
            self._listen(past)
            future = past.wait(step)
            future.add_done_callback(lambda _: self._hub.remove(past))
            return future
        return self._begin(step, Past())

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

    def close(self) -> None:
        """End the connection; all who wait get `ClosedError`. QEMU itself goes on."""
        if self._pid != os.getpid():  # a forked child's copy, whose locks nobody may ever open
            if self._channel is not None:
                self._channel.shut()
            return
        with self._lock:
            self._closing, channel = True, self._channel
        if channel is not None:
            channel.shut()
        self._finish(ClosedError(self.peer, "closed by its owner"))

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

    def request(
        self,
        name: str,
        arguments: Mapping[str, Any] | None,
        fds: Iterable[int] = (),
        *,
        raw: bool = False,
        oob: bool = False,
    ) -> Request:
        """A command that is ready to be submitted."""
        if self._pid != os.getpid():
            raise ClosedError(self.peer, "it belongs to the process that forked this one")
        if oob and not self._oob:
            raise UnsupportedError("out-of-band commands", "this monitor", "open it with oob=True")
        number = next(self._numbers) if oob else None
        return Request(name, encode(name, arguments, number), fds, raw=raw, oob=number)

    def submit(self, request: Request) -> Request:
        """Send a command, or hold it until that is possible."""
        channel = self._channel
        if channel is None:
            with self._lock:
                channel = self._channel
                if channel is None and self._error is None:
                    request.keep_fds()
                    self._held.append(request)
                    return request
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
        return ClosedError(self.peer, self._explained() or _plainly(cause))

    def ended(self, channel: Channel, error: PyvirtError, unsent: list[Request]) -> None:
        with self._lock:
            self._lost += channel.protocol.unwanted
            again = self._address is not None and self.greeting is not None and not self._closing
            if again:
                self._channel = None
                self._held = unsent
        if again:
            self._dial_later()
        else:
            self._finish(error, unsent)

    # Its own doings ---------------------------------------------------------------------

    def _attach(self, sock: socket.socket) -> None:
        """Speak on `sock` from now on."""
        protocol = Protocol(self.peer, size=self._size)
        with self._lock:
            if self._closing:
                sock.close()
                return
            self._channel = channel = Channel(sock, protocol, weakref.ref(self))
            held, self._held = self._held, []
        self._hub.renew()
        for request in held:
            channel.submit(request)

    def _negotiate(self, channel: Channel, greeting: Greeting) -> None:
        self._silent = False
        oob = self._oob and "oob" in greeting.capabilities
        channel.ahead = AHEAD_OF_ANY if self._oob else AHEAD
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

    def _begin(self, step: Step, past: Past) -> Future[Any]:
        match step:
            case Command():
                return self.submit(self.request(step.name, step.arguments, step.fds))
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

    def _explained(self) -> str:
        """What its owner knows of its end."""
        try:
            return self._explain() if self._explain is not None else ""
        except Exception as mistake:
            return f"nothing is known of its end ({mistake!r})"

    def _dial_later(self) -> None:
        """Dial again soon, on a thread of its own: the loop's must not wait for a dead host."""
        thread = threading.Thread(
            target=_dial_again, args=(weakref.ref(self),), name="pyvirt-dial", daemon=True
        )
        loop().later(self._redial, thread.start)

    def _dial_again(self) -> None:
        assert self._address is not None
        try:
            self._attach(dial(self._address, _DIAL))
        except OSError:
            self._redial = min(2 * self._redial, _REDIAL_MOST)
            self._dial_later()


def _dial_again(reference: weakref.ref[Link]) -> None:
    """Dial for as long as somebody has this monitor."""
    link = reference()
    if link is not None and not link.closed:
        link._dial_again()


def _negotiated(
    reference: weakref.ref[Link], channel: Channel, greeting: Greeting, reply: Future[Any]
) -> None:
    link = reference()
    if link is None or reply.cancelled():
        return
    if reply.exception() is None:
        link._admitted(channel, greeting)
    elif not link.closed:
        channel.shut()


def _pause(seconds: float) -> Future[None]:
    future: Future[None] = Future()
    timer = loop().later(seconds, lambda: settle(future, None))
    future.add_done_callback(lambda _: timer.cancel())
    return future


def _plainly(cause: Exception | None) -> str:
    return "it closed the connection" if cause is None else str(cause)
