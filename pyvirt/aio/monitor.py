"""QMP awaited: monitors, events, commands and jobs, driven by what the blocking face is made of."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from pyvirt.errors import ClosedError, TimedOut
from pyvirt.qmp import commands, jobs
from pyvirt.qmp.event import Event
from pyvirt.qmp.flow import Flow, Step
from pyvirt.qmp.jobs import Progress, Seen, Work
from pyvirt.qmp.protocol import LIMIT, Greeting
from pyvirt.qmp.schema import Schema
from pyvirt.running.waiting.drive import Waits
from pyvirt.running.wire import events, monitor
from pyvirt.running.wire.address import Address, dial
from pyvirt.running.wire.events import Match
from pyvirt.running.wire.monitor import PATIENCE

T = TypeVar("T")


async def done(future: Future[Any], deadline: float | None = None) -> None:
    """Return when `future` is done, whatever came of it; `TimeoutError` at `deadline`.

    A future of the I/O thread is waited for without wrapping it, which would warn of errors
    that the caller looks at himself. The deadline counts as `time.monotonic` does.
    """
    if future.done():
        return
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda _: _wake(loop, waiter))
    timer = None
    if deadline is not None:
        timer = loop.call_later(deadline - time.monotonic(), _expire, waiter)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()


def _wake(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the event loop is closed, and nobody waits in it
        loop.call_soon_threadsafe(_arrive, waiter)


def _arrive(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


async def result(future: Future[T], timeout: float | None, what: str) -> T:
    """The result of `future`; `TimedOut` names `what` and cancels it."""
    try:
        await done(future, None if timeout is None else time.monotonic() + timeout)
    except TimeoutError:
        if future.cancel():
            raise TimedOut(what, timeout or 0.0) from None
    except BaseException:
        future.cancel()
        raise
    return future.result()


async def run(waits: Waits[T]) -> T:
    """Drive a flow to its end."""
    try:
        wait = next(waits)
        while True:
            try:
                await done(*wait)
            except BaseException as interruption:
                wait = waits.throw(interruption)
            else:
                wait = next(waits)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        waits.close()


class Events:
    """`pyvirt.running.wire.events.Events` for ``async for`` and ``await``."""

    def __init__(self, queue: events.Events) -> None:
        self._queue = queue

    @property
    def names(self) -> tuple[str, ...] | None:
        return self._queue.names

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    def __len__(self) -> int:
        return len(self._queue)

    async def get(self, timeout: float | None = None) -> Event:
        """The next event; `TimedOut` when none comes, `ClosedError` when none can come."""
        return await result(self._queue.begin(), timeout, self._queue.what)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events as they come, until it or its monitor is closed by our side."""
        while True:
            try:
                event = await self.get(self._queue.timeout)
            except ClosedError:
                if self._queue.expected:
                    return
                raise
            yield event

    async def close(self) -> None:
        """Hear no more; what was heard can still be taken."""
        self._queue.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class Commands(commands.Commands[Awaitable[Any]]):
    """`pyvirt.qmp.commands.Commands`, awaited.

    The first command learns the schema, when the monitor does not know it yet; names are
    completed from then on.
    """

    def __init__(self, monitor: Monitor, **options: Any) -> None:
        super().__init__(lambda: monitor._monitor.learn(), monitor.execute, **options)
        self._monitor = monitor

    def __call__(self, **options: Any) -> Commands:
        return Commands(self._monitor, **{**self._options, **options})

    def __getattr__(self, name: str) -> Any:
        if self._monitor.schema is not None or name.startswith("_"):
            return super().__getattr__(name)
        return partial(self._learnt, name)

    def __dir__(self) -> Iterator[str]:
        return super().__dir__() if self._monitor.schema is not None else iter(())

    def __repr__(self) -> str:
        return "<QMP commands>" if self._monitor.schema is None else super().__repr__()

    async def _learnt(self, name: str, /, *arguments: Any, **more: Any) -> Any:
        await self._monitor.learn()
        return await super().__getattr__(name)(*arguments, **more)


class Monitor:
    """`pyvirt.running.wire.monitor.Monitor`, awaited. It may be used from several event loops."""

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
        self._monitor = monitor.Monitor(
            sock, oob=oob, explain=explain, peer=peer, size=size, reconnect=reconnect
        )

    @classmethod
    def of(cls, blocking: monitor.Monitor) -> Self:
        """The awaited face of a monitor that is there already."""
        face = cls.__new__(cls)
        face._monitor = blocking
        return face

    @classmethod
    async def open(
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
        face = cls(sock, oob=oob, explain=explain, peer=peer, size=size)
        return await face._started(timeout)

    @classmethod
    async def connect(
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
        """A monitor that listens at `address`; with `reconnect`, again whenever it ends."""
        deadline = None if timeout is None else time.monotonic() + timeout
        again = address if reconnect else None
        sock = await asyncio.to_thread(dial, address, timeout)
        face = cls(sock, oob=oob, explain=explain, peer=peer, size=size, reconnect=again)
        return await face._started(None if deadline is None else deadline - time.monotonic())

    @property
    def peer(self) -> str:
        return self._monitor.peer

    @property
    def ready(self) -> Awaitable[Greeting]:
        return asyncio.wrap_future(self._monitor.ready)

    @property
    def greeting(self) -> Greeting | None:
        return self._monitor.greeting

    @property
    def reconnected(self) -> int:
        return self._monitor.reconnected

    @property
    def closed(self) -> bool:
        return self._monitor.closed

    @property
    def unheard(self) -> int:
        """How many events arrived for which nobody listened."""
        return self._monitor.unheard

    async def execute(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        fds: Iterable[int] = (),
        oob: bool = False,
        timeout: float | None = PATIENCE,
    ) -> Any:
        """Run one command and return what it returned."""
        link = self._monitor
        request = link.submit(link.request(name, arguments, fds, oob=oob))
        return await result(request, timeout, name)

    async def fetch(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = PATIENCE,
    ) -> bytes:
        """Run one command and return what it returned as JSON, not decoded."""
        link = self._monitor
        request = link.submit(link.request(name, arguments, raw=True))
        reply = await result(request, timeout, name)
        assert isinstance(reply, bytes)
        return reply

    async def learn(
        self, schema: Schema | None = None, *, timeout: float | None = PATIENCE
    ) -> Schema:
        """The commands of this QEMU: as told (`schema`), as known already, or as it says."""
        if schema is None and self.schema is None:
            schema = Schema.decode(await self.fetch("query-qmp-schema", timeout=timeout))
        return self._monitor.learn(schema)

    @property
    def schema(self) -> Schema | None:
        return self._monitor.schema

    @property
    def qmp(self) -> Commands:
        """All commands of this QEMU: ``await monitor.qmp.query_block()``."""
        return Commands(self)

    def begin(self, step: Step) -> Awaitable[Any]:
        """Begin `step`; await it, or cancel it. An `Until` hears events from now on."""
        return asyncio.wrap_future(self._monitor.begin(step))

    async def run(self, flow: Flow[T], timeout: float | None = None) -> T:
        """Run `flow` to its end and return what it returns."""
        with self._monitor.waits(flow, timeout) as waits:
            return await run(waits)

    def events(
        self, *names: str, match: Match = None, size: int = 1024, timeout: float | None = None
    ) -> Events:
        """A queue of the events to come: of these names (else all), with data like `match`."""
        return Events(self._monitor.events(*names, match=match, size=size, timeout=timeout))

    async def close(self) -> None:
        """End the connection; all who wait get `ClosedError`. QEMU itself goes on."""
        self._monitor.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._monitor)

    async def _started(self, timeout: float | None) -> Self:
        try:
            await result(self._monitor.ready, timeout, f"{self.peer}'s monitor")
        except BaseException as error:
            await self.close()
            raise self._monitor.unready(error) from None
        return self


class Job:
    """`pyvirt.running.wire.job.Job`, awaited: ``await job`` waits until it has ended."""

    def __init__(self, monitor: Monitor, work: Work) -> None:
        self.monitor, self.work = monitor, work

    @classmethod
    async def start(
        cls,
        monitor: Monitor,
        name: str,
        arguments: Mapping[str, Any],
        *,
        fds: Iterable[int] = (),
        timeout: float | None = PATIENCE,
    ) -> Self:
        """Begin a block job with the command `name` ("blockdev-backup", "block-commit", ...)."""
        return cls(monitor, await monitor.run(jobs.start(name, arguments, tuple(fds)), timeout))

    @classmethod
    def attach(cls, monitor: Monitor, id: str) -> Self:
        """The block job that QEMU knows as `id`."""
        return cls(monitor, jobs.BlockJob(id))

    @classmethod
    async def migrate(
        cls,
        monitor: Monitor,
        uri: str,
        *,
        fd: int | None = None,
        timeout: float | None = PATIENCE,
    ) -> Self:
        """Begin to migrate to `uri`, or through the descriptor `fd`, which is then named so."""
        return cls(monitor, await monitor.run(jobs.migrate(uri, fd), timeout))

    @classmethod
    def migration(cls, monitor: Monitor) -> Self:
        """The migration that is under way, out of or into this QEMU."""
        return cls(monitor, jobs.Migration())

    @property
    def id(self) -> str:
        return self.work.id

    async def progress(self, *, timeout: float | None = PATIENCE) -> Progress:
        """Where it stands now; its status is in QEMU's words, "null" for one that is gone."""
        return await self.monitor.run(self.work.look(), timeout)

    async def wait(
        self,
        until: str | None = None,
        *,
        seen: Seen | None = None,
        timeout: float | None = None,
    ) -> Progress:
        """Wait until it has ended, or its status is `until` ("ready"); `JobError` if it failed."""
        return await self.monitor.run(self.work.wait(until, seen), timeout)

    async def cancel(self, *, timeout: float | None = PATIENCE) -> Progress:
        """Give it up, and wait until it has ended."""
        return await self.monitor.run(self.work.cancel(), timeout)

    async def complete(self, *, timeout: float | None = None) -> Progress:
        """Have what is ready switch over, and wait until it has ended."""
        return await self.monitor.run(self.work.complete(), timeout)

    async def throttle(self, speed: int, *, timeout: float | None = PATIENCE) -> None:
        """Copy at most `speed` bytes a second."""
        await self.monitor.run(self.work.throttle(speed), timeout)

    def __await__(self) -> Generator[Any, None, Progress]:
        return self.wait().__await__()

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.monitor.peer}>"
