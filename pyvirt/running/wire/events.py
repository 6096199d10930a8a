"""Who hears which events: bounded queues, single waits, and what a flow has not looked at yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, Self

from pyvirt.errors import ClosedError, PyvirtError, SpecError, TimedOut, own
from pyvirt.qmp.event import Event
from pyvirt.qmp.flow import Until, matches
from pyvirt.running.waiting.loop import loop

Match = Mapping[str, Any] | Callable[[Event], bool] | None

PAST, PAST_NAMES = 256, 128
"""How many events of one name, and of how many names, a flow can leave lying before it waits
for them. QEMU has some sixty names."""


class Listener(Protocol):
    """Hears events of `names`, or of all names (None)."""

    @property
    def names(self) -> tuple[str, ...] | None: ...
    def offer(self, event: Event) -> None: ...
    def end(self, error: PyvirtError, expected: bool) -> None: ...


class Hub:
    """Passes each event to those who listen for its name."""

    def __init__(self, want: Callable[[Iterable[str] | None], None]) -> None:
        self._want = want  # told the names of all events that somebody listens for
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._by_name: dict[str, tuple[Listener, ...]] = {}
        self._to_all: tuple[Listener, ...] = ()

    def add(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.append(listener)
            self._index()

    def remove(self, listener: Listener) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
                self._index()

    def publish(self, event: Event) -> None:
        for listener in self._by_name.get(event.name, self._to_all):
            listener.offer(event)

    def renew(self) -> None:
        """Say again what is wanted, to a new connection."""
        with self._lock:
            self._index()

    def end(self, error: PyvirtError, *, expected: bool) -> None:
        """No events will come any more; `expected` when our side ended it."""
        with self._lock:
            listeners, self._listeners = self._listeners, []
            self._by_name, self._to_all = {}, ()
        for listener in listeners:
            listener.end(error, expected)

    def _index(self) -> None:
        """Which listeners hear which name; replaced whole, so that `publish` needs no lock."""
        to_all = tuple(one for one in self._listeners if one.names is None)
        names = {name for one in self._listeners for name in one.names or ()}
        self._by_name = {
            name: tuple(one for one in self._listeners if one.names is None or name in one.names)
            for name in names
        }
        self._to_all = to_all
        self._want(None if to_all else names)


class Past:
    """Events that nobody has waited for yet, and waits that no event has met yet.

    Each event answers one wait. Of each name the newest `PAST` are kept.
    """

    def __init__(self, names: tuple[str, ...] | None = None) -> None:
        self.names = names
        self._lock = threading.Lock()
        self._order = 0
        self._kept: dict[str, deque[tuple[int, Event]]] = {}
        self._waits: list[tuple[Until, Future[Event]]] = []
        self._error: PyvirtError | None = None

    def wait(self, until: Until) -> Future[Event]:
        """A future of the first such event that is kept, or of the next one."""
        future: Future[Event] = Future()
        event: Event | None
        error: Exception | None
        with self._lock:
            try:
                event, error = self._take(until), self._error
            except Exception as mistake:
                event, error = None, mistake
            if event is None and error is None:
                self._waits = [wait for wait in self._waits if not wait[1].done()]
                self._waits.append((until, future))
        if event is not None:
            future.set_result(event)
        elif error is not None:
            future.set_exception(own(error))
        elif until.timeout is not None:
            self._limit(until, future)
        return future

    def offer(self, event: Event) -> None:
        """Answer the wait that is oldest, or keep `event`."""
        error: Exception | None = None
        with self._lock:
            for wait in self._waits:
                until, future = wait
                try:
                    wanted = until.wants(event)
                except Exception as mistake:
                    wanted, error = True, mistake
                if wanted and future.set_running_or_notify_cancel():
                    self._waits.remove(wait)
                    break
            else:
                self._keep(event)
                return
        if error is None:
            future.set_result(event)
        else:
            future.set_exception(error)

    def end(self, error: PyvirtError, expected: bool) -> None:
        with self._lock:
            self._error = error
            waits, self._waits = self._waits, []
        for _, future in waits:
            if future.set_running_or_notify_cancel():
                future.set_exception(own(error))

    def _keep(self, event: Event) -> None:
        self._order += 1
        kept = self._kept.get(event.name)
        if kept is None:
            if len(self._kept) >= PAST_NAMES:
                return
            kept = self._kept[event.name] = deque(maxlen=PAST)
        kept.append((self._order, event))

    def _take(self, until: Until) -> Event | None:
        """The oldest kept event that `until` wants; it is kept no longer."""
        found = [
            next((entry for entry in self._kept.get(name, ()) if until.wants(entry[1])), None)
            for name in until.names
        ]
        oldest = min((entry for entry in found if entry is not None), default=None, key=_age)
        if oldest is None:
            return None
        self._kept[oldest[1].name].remove(oldest)
        return oldest[1]

    def _limit(self, until: Until, future: Future[Event]) -> None:
        assert until.timeout is not None
        timer = loop().later(until.timeout, lambda: self._expire(until, future))
        future.add_done_callback(lambda _: timer.cancel())

    def _expire(self, until: Until, future: Future[Event]) -> None:
        with self._lock:
            before = len(self._waits)
            self._waits = [wait for wait in self._waits if wait[1] is not future]
            met = len(self._waits) == before
        if not met and future.set_running_or_notify_cancel():
            future.set_exception(TimedOut(" or ".join(until.names), until.timeout or 0.0))


def _age(entry: tuple[int, Event]) -> int:
    return entry[0]


class Events:
    """A bounded queue of events: iterate it, or `get` one. Close it, or use it in a ``with``.

    When it is full the oldest event makes room, and `dropped` counts it.
    """

    def __init__(
        self, hub: Hub, names: tuple[str, ...], match: Match, size: int, timeout: float | None
    ) -> None:
        if size < 1:
            raise SpecError("size", "must be at least 1", size)
        self.names = names or None
        self.dropped = 0
        self.expected = False  # whether it was our side that ended it
        self.timeout = timeout
        self._hub, self._match, self._size = hub, match or {}, size
        self._lock = threading.Lock()
        self._queue: deque[Event] = deque()
        self._gets: deque[Future[Event]] = deque()
        self._error: Exception | None = None
        hub.add(self)

    def __len__(self) -> int:
        """How many events wait to be taken."""
        return len(self._queue)

    def begin(self) -> Future[Event]:
        """A future of the next event; cancel it if it shall not be taken after all."""
        future: Future[Event] = Future()
        with self._lock:
            if self._queue:
                future.set_result(self._queue.popleft())
            elif self._error is not None:
                future.set_exception(own(self._error))
            else:
                self._gets.append(future)
        return future

    def get(self, timeout: float | None = None) -> Event:
        """The next event; `TimedOut` when none comes, `ClosedError` when none can come."""
        future = self.begin()
        try:
            return future.result(timeout)
        except TimeoutError:
            if not future.cancel():
                return future.result()
            raise TimedOut(self.what, timeout or 0.0) from None

    @property
    def what(self) -> str:
        """What it waits for, in words."""
        return " or ".join(self.names or ("an event",))

    def __iter__(self) -> Iterator[Event]:
        """Events as they come, until it or its monitor is closed by our side."""
        while True:
            try:
                event = self.get(self.timeout)
            except ClosedError:
                if self.expected:
                    return
                raise
            yield event

    def close(self) -> None:
        """Hear no more; what was heard can still be taken."""
        self._hub.remove(self)
        self.end(ClosedError("event queue", "closed by its owner"), True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def offer(self, event: Event) -> None:
        try:
            if not matches(self._match, event):
                return
        except Exception as mistake:  # a predicate's, which its author should see
            self._hub.remove(self)
            self._end(mistake)
            return
        with self._lock:
            future = self._next_get()
            if future is None:
                if len(self._queue) >= self._size:
                    self._queue.popleft()
                    self.dropped += 1
                self._queue.append(event)
        if future is not None:
            future.set_result(event)

    def end(self, error: PyvirtError, expected: bool) -> None:
        self.expected = expected
        self._end(error)

    def _end(self, error: Exception) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
            gets = list(self._gets)
            self._gets.clear()
        for future in gets:
            if future.set_running_or_notify_cancel():
                future.set_exception(own(error))

    def _next_get(self) -> Future[Event] | None:
        """Who waits longest for an event."""
        while self._gets:
            future = self._gets.popleft()
            if future.set_running_or_notify_cancel():
                return future
        return None
