"""One thread that waits for all sockets, deaths and timers of this process.

Callbacks run on that thread, one after another: they must not wait. It starts at first
use, ends with the process, and a forked child gets its own when it first needs one.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

Callback = Callable[[], None]

_LONGEST = 3600.0  # seconds of one wait; epoll takes no more than some weeks

_ENDED = select.EPOLLHUP | select.EPOLLERR
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | _ENDED
_WRITABLE = select.EPOLLOUT | _ENDED


class Timer:
    """Something to happen later; `cancel` is safe at any time, from any thread."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callback) -> None:
        self._callback: Callback | None = callback

    @property
    def live(self) -> bool:
        """Whether it has neither happened nor been cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class _Watch:
    """What one file descriptor waits for."""

    __slots__ = ("events", "readable", "writable")

    def __init__(self, readable: Callback) -> None:
        self.readable = readable
        self.writable: Callback | None = None
        self.events = select.EPOLLIN


class Loop:
    """The thread and its epoll. All methods may be called from any thread.

    `add` expects a descriptor that does not block. `remove` it before closing it; when
    called from another thread, a callback that has begun still runs to its end.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._lock = threading.Lock()
        self._watches: dict[int, _Watch] = {}
        self._fresh: set[int] = set()
        self._soon: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._crowd = 64
        self._order = itertools.count()
        self._thread = threading.Thread(target=self._run, name="pyvirt-loop", daemon=True)
        self._thread.start()

    def add(self, fd: int, readable: Callback) -> None:
        """Call `readable` whenever `fd` has something to read, or has ended."""
        with self._lock:
            self._epoll.register(fd, select.EPOLLIN)
            self._watches[fd] = _Watch(readable)
            self._fresh.add(fd)

    def reading(self, fd: int, wanted: bool) -> None:
        """Stop, or resume, calling the `readable` of `fd` (to push back, or to read elsewhere)."""
        with self._lock:
            self._change(fd, select.EPOLLIN, wanted)

    def writable(self, fd: int, callback: Callback | None) -> None:
        """Call `callback` whenever `fd` takes more; None stops that."""
        with self._lock:
            watch = self._watches.get(fd)
            if watch is not None:
                watch.writable = callback
                self._change(fd, select.EPOLLOUT, callback is not None)

    def remove(self, fd: int) -> None:
        """Forget `fd`; nothing happens when it is not known."""
        with self._lock:
            watch = self._watches.pop(fd, None)
            if watch is not None and watch.events:
                with suppress(OSError):  # closing it too early has removed it already
                    self._epoll.unregister(fd)

    def soon(self, callback: Callback) -> None:
        """Call `callback` on the loop's thread as soon as it is free."""
        self._soon.append(callback)
        self._interrupt()

    def later(self, seconds: float, callback: Callback) -> Timer:
        """Call `callback` on the loop's thread in `seconds`."""
        timer = Timer(callback)
        entry = (time.monotonic() + seconds, next(self._order), timer)
        with self._lock:
            self._forget_cancelled()
            heapq.heappush(self._timers, entry)
            first = self._timers[0] is entry
        if first:
            self._interrupt()
        return timer

    def here(self) -> bool:
        """Whether the caller is on the loop's thread, where waiting would be for ever."""
        return threading.get_ident() == self._thread.ident

    def _forget_cancelled(self) -> None:
        """Keep the heap within twice its live timers: most limits are cancelled, not met."""
        if len(self._timers) >= self._crowd:
            self._timers = [entry for entry in self._timers if entry[2].live]
            heapq.heapify(self._timers)
            self._crowd = max(64, 2 * len(self._timers))

    def _change(self, fd: int, event: int, wanted: bool) -> None:
        watch = self._watches.get(fd)
        if watch is None:
            return
        before = watch.events
        watch.events = before | event if wanted else before & ~event
        # A descriptor that waits for nothing leaves the set: epoll would report its end for ever.
        if before and watch.events:
            self._epoll.modify(fd, watch.events)
        elif watch.events:
            self._epoll.register(fd, watch.events)
        elif before:
            self._epoll.unregister(fd)

    def _interrupt(self) -> None:
        if not self.here():
            os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while True:
            self._fresh.clear()
            for fd, events in self._epoll.poll(self._patience()):
                self._dispatch(fd, events)
            self._fire_timers()
            for _ in range(len(self._soon)):
                _guarded(self._soon.popleft())

    def _patience(self) -> float | None:
        """How long to wait for descriptors: until the next timer, or for ever."""
        if self._soon:
            return 0.0
        with self._lock:
            if not self._timers:
                return None
            return min(max(0.0, self._timers[0][0] - time.monotonic()), _LONGEST)

    def _dispatch(self, fd: int, events: int) -> None:
        if fd == self._wake:
            with suppress(BlockingIOError):
                os.eventfd_read(fd)
            return
        # A number that was closed and given out again after the poll began would get its
        # predecessor's news; what is true of it is reported again by the next poll.
        watch = self._watches.get(fd)
        if watch is None or fd in self._fresh:
            return
        if events & _READABLE:
            _guarded(watch.readable)
        if events & _WRITABLE and watch.writable is not None:
            _guarded(watch.writable)

    def _fire_timers(self) -> None:
        now = time.monotonic()
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > now:
                    return
                timer = heapq.heappop(self._timers)[2]
            _guarded(timer.fire)

    def _abandon(self) -> None:
        """In a forked child: let go of the parent's descriptors without touching its epoll set."""
        self._epoll.close()
        os.close(self._wake)


def _guarded(callback: Callback) -> None:
    """One caller's mistake must not end the loop for all others."""
    try:
        callback()
    except Exception:
        thread = threading.current_thread()
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), thread)))


_loop: Loop | None = None
_birth = threading.Lock()


def loop() -> Loop:
    """The loop of this process, started when first asked for."""
    global _loop
    if _loop is None:
        with _birth:
            if _loop is None:
                _loop = Loop()
    return _loop


def _forked() -> None:
    global _loop, _birth
    if _loop is not None:
        _loop._abandon()
    _loop, _birth = None, threading.Lock()


os.register_at_fork(after_in_child=_forked)
