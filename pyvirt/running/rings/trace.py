"""Following the virtqueues of a running guest, request by request, from outside."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from attrs import frozen

from pyvirt._native.trace import SNAP_MOST, Sampler, rebase
from pyvirt.errors import SpecError
from pyvirt.running.rings.bells import Bells
from pyvirt.virtio.records import Lost, TracedQueue
from pyvirt.virtio.requests import Request
from pyvirt.virtio.ring import Ring
from pyvirt.virtio.trace import Trace

#: Seconds between looks while something moves, beyond those that the guest's kicks cause.
INTERVAL = 1e-3

#: Seconds between looks where no bell wakes the tracer. A guest under TCG takes longer for a
#: request. It is also the least that the budget can demand between two looks.
POLL = 60e-6

#: Seconds between looks when nothing moves, where no bell wakes the tracer.
IDLE = 200e-6

#: Seconds without a move after which nothing moves.
QUIET = 0.02

#: Share of one processor that looking may take.
BUDGET = 0.5

#: First bytes that are kept of each part of a request: headers, and short frames whole.
SNAP = 128

#: Bytes of records that may wait until somebody takes them.
BUFFER = 64 << 20

#: Seconds that a chain must stand still to be certain; see csrc/pv_trace.h.
SETTLE = 50e-6

#: Seconds that the end of the following thread may take: its last look, on a busy host.
_JOIN = 30.0

Callback = Callable[[Request], Any]


@frozen
class Terms:
    """How closely to look; see `RunningVM.trace`."""

    interval: float = INTERVAL
    budget: float = BUDGET
    snap: int = SNAP
    buffer: int = BUFFER
    keep: bool = True
    realtime: bool = True

    def __attrs_post_init__(self) -> None:
        if not 0 < self.interval <= 1:
            raise SpecError("interval", "must be more than 0 and at most 1 second", self.interval)
        if not 0 < self.budget <= 1:
            raise SpecError("budget", "must be more than 0 and at most 1 processor", self.budget)
        if not 1 <= self.snap <= SNAP_MOST:
            raise SpecError("snap", f"must be 1 to {SNAP_MOST} bytes", self.snap)
        if self.buffer < (least := 4096 + 4 * self.snap):
            raise SpecError("buffer", f"must be at least {least} bytes", self.buffer)


@frozen
class Effort:
    """What following cost: looks, processor seconds, and the longest time between two looks."""

    looks: int
    processor: float
    longest: float


@frozen
class Counts:
    """What a queue did while it was followed: requests, bytes read and written by the device."""

    made: int
    done: int
    readable: int
    writable: int
    lost: int
    uncertain: int
    depth: int


class Tracer:
    """Follows queues until it is stopped, or the guest ends or is reset.

    Iterate it for requests as they are done, each once; take `stop` for a `Trace` of all. Use it
    in a ``with``. One thread may iterate it. What is not taken waits in a buffer; what finds no
    room there is counted in `lost`.
    """

    def __init__(
        self,
        rings: Sequence[Ring],
        pid: int,
        terms: Terms,
        *,
        recorded: bool = True,
        callback: Callback | None = None,
    ) -> None:
        self.queues, self.terms = described(rings), terms
        self.why: str | None = None
        self._records, self._payload = bytearray(), bytearray()
        self._taking, self._stopping = threading.Lock(), threading.Lock()
        self._trace: Trace | None = None
        self._failures: list[BaseException] = []
        with ExitStack() as stack:
            notice = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            stack.callback(os.close, notice)
            bells = stack.enter_context(Bells(pid))
            self._sampler = _sampler(rings, terms, recorded, notice, bells)
            self._notice = os.dup(notice)
            self._owned = stack.pop_all()
        self._realtime = time.time_ns() - time.monotonic_ns()
        self._thread = threading.Thread(
            target=_follow, args=(self._sampler, notice, self._owned, self._failures),
            name="pyvirt-trace", daemon=True,
        )  # fmt: skip
        self._thread.start()
        self.wait(_JOIN)  # until it has begun
        self._caller = self._call(callback) if callback is not None else None

    def end_with(self, future: Future[Any], why: str) -> None:
        """Follow no longer when `future` has a result."""
        me = weakref.ref(self)

        def done(future: Future[Any]) -> None:
            tracer = me()
            if tracer is not None and not future.cancelled() and future.exception() is None:
                tracer._end(why)

        future.add_done_callback(done)

    def own(self, close: Callable[[], Any]) -> None:
        """Call `close` when it is over."""
        self._owned.callback(close)

    @property
    def over(self) -> bool:
        """Whether nothing is followed any more; what was recorded can still be taken."""
        return not self._thread.is_alive()

    @property
    def lost(self) -> Lost:
        """What could not be seen, or found no room, so far."""
        counts = self.counts()
        return Lost(
            sum(one.lost for one in counts),
            sum(one.uncertain for one in counts),
            self._sampler.dropped,
        )

    @property
    def effort(self) -> Effort:
        """What following cost. The processor time is known at the end."""
        sampler = self._sampler
        return Effort(sampler.looks, sampler.spent / 1e9, sampler.longest / 1e9)

    def counts(self) -> list[Counts]:
        """What each queue did so far, in the order of `queues`."""
        return [Counts(*one) for one in self._sampler.counts()]

    def batch(self) -> Trace:
        """What has been recorded since the last one, at once and without waiting."""
        with self._taking:
            keep = self.terms.keep
            records, payload = self._sampler.take(0)
            if keep:
                self._keep(records, payload)
        return Trace(records, payload, self.queues, started=self._sampler.started,
                     ended=time.monotonic_ns(), realtime=self._realtime)  # fmt: skip

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is something to take, or all is over; whether it is so."""
        poll = select.poll()
        poll.register(self._notice, select.POLLIN)
        if not poll.poll(None if timeout is None else timeout * 1e3):
            return False
        self.noticed()
        return True

    def fileno(self) -> int:
        """An eventfd that is readable when there may be something to take; see `noticed`."""
        return self._notice

    def noticed(self) -> None:
        """Wait for the next notice from now on."""
        try:
            os.eventfd_read(self._notice)
        except BlockingIOError:  # another one was faster
            return

    def __iter__(self) -> Iterator[Request]:
        """Requests as they are done, until it is over."""
        while True:
            over = self.over
            batch = self.batch()
            yield from batch
            if over and not len(batch):
                return
            if not over:
                self.wait(0.5)

    def stop(self) -> Trace:
        """Follow no longer; the trace of all requests that were seen.

        With `keep` off it has those that were not iterated over. Who iterates on another thread
        may not get the last ones. Raises what the callback raised.
        """
        self._end("it was stopped")
        self._thread.join(_JOIN)
        if self._caller is not None and self._caller is not threading.current_thread():
            self._caller.join(_JOIN)
        with self._stopping:
            if self._trace is None:
                self._trace = self._whole()
                self._owned.close()  # what it was given when it was over already
        if self._failures:
            raise self._failures.pop()
        return self._trace

    def close(self) -> None:
        """Follow no longer."""
        self.stop()

    def _whole(self) -> Trace:
        with self._taking:
            records, payload = self._sampler.take(0)
            self._keep(records, payload)
        sampler = self._sampler
        return Trace(self._records, self._payload, self.queues, lost=self.lost,
                     started=sampler.started, ended=sampler.ended,
                     realtime=self._realtime)  # fmt: skip

    def _keep(self, records: bytearray, payload: bytearray) -> None:
        """All records so far, as one."""
        kept = bytearray(records)
        rebase(kept, len(self._payload))
        self._records += kept
        self._payload += payload

    def _end(self, why: str) -> None:
        if self.why is None:
            self.why = why
        self._sampler.stop()

    def _call(self, callback: Callback) -> threading.Thread:
        def body() -> None:
            try:
                for request in self:
                    callback(request)
            except BaseException as error:
                self._failures.append(error)
                self._end("its callback failed")

        thread = threading.Thread(target=body, name="pyvirt-trace-callback", daemon=True)
        thread.start()
        return thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __del__(self) -> None:
        if getattr(self, "_thread", None) is None:  # it did not begin
            return
        if not self.over and not sys.is_finalizing():
            warnings.warn(f"{self!r} was not stopped", ResourceWarning, stacklevel=1, source=self)
        self._sampler.stop()
        os.close(self._notice)  # not before: somebody may be waiting for it when it is stopped

    def __repr__(self) -> str:
        devices = ", ".join(dict.fromkeys(queue.device for queue in self.queues))
        state = f"over, {self.why}" if self.over else "following"
        done = sum(one.done for one in self.counts())
        return f"<Tracer of {devices}: {state}, {done} requests, {self.lost}>"


def _follow(
    sampler: Sampler, notice: int, owned: ExitStack, failures: list[BaseException]
) -> None:
    """What the thread does. It does not hold the tracer, which so ends when nobody has it."""
    with owned:
        try:
            sampler.run()
        except BaseException as error:
            failures.append(error)
            os.eventfd_write(notice, 1)


def described(rings: Sequence[Ring]) -> tuple[TracedQueue, ...]:
    """What a trace says of rings."""
    last: dict[str | None, int] = {}
    for ring in rings:
        last[ring.device] = max(last.get(ring.device, 0), (ring.queue or 0) + 1)
    return tuple(
        TracedQueue(
            ring.device or "", ring.device_kind, ring.path, ring.queue or 0,
            ring.layout.features, ring.size, last[ring.device],
        )
        for ring in rings
    )  # fmt: skip


def _sampler(
    rings: Sequence[Ring], terms: Terms, recorded: bool, notice: int, bells: Bells
) -> Sampler:
    def ns(seconds: float) -> int:
        return round(seconds * 1e9)

    poll = min(POLL, terms.interval) if recorded else terms.interval
    return Sampler(
        [(ring.door, recorded) for ring in rings], terms.snap, terms.buffer, ns(poll),
        ns(terms.interval), ns(IDLE), ns(QUIET), ns(SETTLE), round(terms.budget * 1e6),
        terms.realtime, notice, bells.fileno(),
    )  # fmt: skip
