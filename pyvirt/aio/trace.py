"""Following virtqueues, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from pyvirt.aio.monitor import _arrive, result
from pyvirt.running.rings import trace as blocking
from pyvirt.running.rings.trace import Counts, Effort, Terms
from pyvirt.running.waiting.waits import aside
from pyvirt.virtio.records import Lost, TracedQueue
from pyvirt.virtio.requests import Request
from pyvirt.virtio.trace import Trace


class Tracer:
    """`pyvirt.running.rings.trace.Tracer`, awaited: ``async for request in tracer``."""

    def __init__(self, tracer: blocking.Tracer) -> None:
        self._tracer = tracer

    @property
    def queues(self) -> tuple[TracedQueue, ...]:
        """The queues that are followed."""
        return self._tracer.queues

    @property
    def terms(self) -> Terms:
        """How closely they are looked at."""
        return self._tracer.terms

    @property
    def why(self) -> str | None:
        """Why it ended, or None."""
        return self._tracer.why

    @property
    def over(self) -> bool:
        """Whether nothing is followed any more; what was recorded can still be taken."""
        return self._tracer.over

    @property
    def lost(self) -> Lost:
        """What could not be seen, or found no room, so far."""
        return self._tracer.lost

    @property
    def effort(self) -> Effort:
        """What following cost. The processor time is known at the end."""
        return self._tracer.effort

    def counts(self) -> list[Counts]:
        """What each queue did so far, in the order of `queues`."""
        return self._tracer.counts()

    def batch(self) -> Trace:
        """What has been recorded since the last one, at once and without waiting."""
        return self._tracer.batch()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is something to take, or all is over; whether it is so."""
        loop = asyncio.get_running_loop()
        there: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._tracer.fileno(), _arrive, there)
        try:
            await asyncio.wait_for(there, timeout)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._tracer.fileno())
        self._tracer.noticed()
        return True

    async def __aiter__(self) -> AsyncIterator[Request]:
        """Requests as they are done, until it is over."""
        while True:
            over = self.over
            batch = self.batch()
            for request in batch:
                yield request
            if over and not len(batch):
                return
            if not over:
                await self.wait(0.5)

    async def stop(self) -> Trace:
        """Follow no longer; the trace of all requests that were seen.

        With `keep` off it has those that were not iterated over. Raises what the callback raised.
        """
        return await result(aside(self._tracer.stop), None, "the end of a trace")

    async def close(self) -> None:
        """Follow no longer."""
        await self.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return repr(self._tracer)
