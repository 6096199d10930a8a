"""A running container, awaited: the acts of the blocking face, driven in a task.

Cancelling the task interrupts the act: a command is ended in the container, and a wait is
given up.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future
from functools import partial, wraps
from inspect import signature
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast

from pyvirt.aio.console import Console
from pyvirt.aio.monitor import done, result, run
from pyvirt.aio.process import GuestProcess
from pyvirt.container import Container
from pyvirt.flows.steps import Act
from pyvirt.guest.carrier import Command
from pyvirt.running.acts.base import BOOT
from pyvirt.running.lxc import container as blocking
from pyvirt.running.lxc.acts import Acts
from pyvirt.running.lxc.exit import ContainerExit
from pyvirt.running.lxc.store import Store
from pyvirt.running.vm import result_of
from pyvirt.running.waiting.waits import aside

if TYPE_CHECKING:
    from pyvirt.running.rootfs.watch import Progress

P = ParamSpec("P")
T = TypeVar("T")


def awaiting(
    act: Callable[Concatenate[Acts, P], Act[T]],
) -> Callable[Concatenate[RunningContainer, P], Coroutine[Any, Any, T]]:
    """The act as a method to be awaited."""

    @wraps(act)
    async def method(self: RunningContainer, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._drive(act(self._acts, *args, **kwargs))

    method.__annotations__ = {**act.__annotations__, "return": result_of(act)}
    method.__signature__ = signature(act).replace(  # type: ignore[attr-defined]
        return_annotation=result_of(act)
    )
    return cast("Callable[Concatenate[RunningContainer, P], Coroutine[Any, Any, T]]", method)


class RunningContainer:
    """`pyvirt.RunningContainer`, awaited: use it in an ``async with``, or await `close`."""

    def __init__(self, running: blocking.RunningContainer) -> None:
        self._running = running
        self._engine, self._acts = running._engine, running._acts

    @classmethod
    def of(cls, running: blocking.RunningContainer) -> Self:
        """The awaited face of a container that runs already. Either face closes it."""
        return cls(running)

    # Life and death
    status = awaiting(Acts.status)
    pause = awaiting(Acts.pause)
    resume = awaiting(Acts.resume)
    freeze = awaiting(Acts.freeze)
    thaw = awaiting(Acts.thaw)
    signal = awaiting(Acts.signal)
    reboot = awaiting(Acts.reboot)
    shutdown = awaiting(Acts.shutdown)
    stop = awaiting(Acts.stop)
    wait = awaiting(Acts.wait)
    wait_for = awaiting(Acts.wait_for)

    # What it may use and has
    limit = awaiting(Acts.limit)
    plug = awaiting(Acts.plug)
    unplug = awaiting(Acts.unplug)

    # Looking
    addresses = awaiting(Acts.addresses)
    stats = awaiting(Acts.stats)
    network_statistics = awaiting(Acts.network_statistics)

    # Inside
    run = awaiting(Acts.run)
    put = awaiting(Acts.put)
    get = awaiting(Acts.get)
    read_text = awaiting(Acts.read_text)
    read_bytes = awaiting(Acts.read_bytes)
    write_text = awaiting(Acts.write_text)
    ping = awaiting(Acts.ping)
    guest_info = awaiting(Acts.guest_info)

    async def spawn(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        pty: bool = False,
        boot: float | None = BOOT,
    ) -> GuestProcess:
        """Start `command` in the guest, with live streams; `pty` gives it a terminal."""
        act = self._acts.spawn(command, env=env, cwd=cwd, user=user, pty=pty, boot=boot)
        return GuestProcess(await self._drive(act))

    @property
    def container(self) -> Container:
        """The description it was started from, with what its image says, and its limits now."""
        return self._running.container

    @property
    def name(self) -> str:
        """What it is found by."""
        return self._running.name

    @property
    def place(self) -> Path:
        """Its directory in the store."""
        return self._running.place

    @property
    def pid(self) -> int:
        """The process id of its first process on this host; -1 when it has ended."""
        return self._running.pid

    @property
    def console(self) -> Console:
        """What its processes write on /dev/console, and a keyboard for them."""
        return Console(self._running.console)

    @property
    def log(self) -> str:
        """The end of what liblxc wrote down about it."""
        return self._running.log

    @property
    def config(self) -> str:
        """The configuration that liblxc was given."""
        return self._running.config

    @property
    def exit(self) -> ContainerExit | None:
        """How it ended, or None while it runs."""
        return self._running.exit

    async def close(self) -> None:
        """End it if it is ours, and give everything back. In a forked child: nothing."""
        await result(aside(self._running.close), None, f"closing {self.name}")

    async def destroy(self) -> None:
        """End it and remove all of it, even if it was started detached."""
        await result(aside(self._running.destroy), None, f"destroying {self.name}")

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
        return repr(self._running)

    def _repr_html_(self) -> str:
        return self._running._repr_html_()

    async def _drive(self, flow: Act[T]) -> T:
        return await run(self._engine.waits(flow))


class Starting:
    """A start under way, for ``await`` and for ``async with``."""

    def __init__(self, begin: Callable[[], blocking.RunningContainer]) -> None:
        self._begin = begin
        self._running: RunningContainer | None = None

    def __await__(self) -> Generator[Any, None, RunningContainer]:
        return self._start().__await__()

    async def __aenter__(self) -> RunningContainer:
        self._running = await self
        return self._running

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._running is not None:
            await self._running.close()

    async def _start(self) -> RunningContainer:
        beginning = aside(self._begin)
        try:
            await done(beginning)
        except BaseException:
            beginning.add_done_callback(_close)
            raise
        return RunningContainer.of(beginning.result())


def contain(
    container: Container,
    *,
    timeout: float = 30.0,
    progress: Progress | None = None,
    detach: bool = False,
    store: Store | None = None,
) -> Starting:
    """Start `container`; see `Container.start`. ``async with contain(it) as running``, or await.

    A start whose task is cancelled leaves nothing behind.
    """
    start = blocking.RunningContainer.start
    how = {"timeout": timeout, "progress": progress, "detach": detach, "store": store}
    return Starting(partial(start, container, **how))  # type: ignore[arg-type]


async def attach(name: str, *, store: Store | None = None) -> RunningContainer:
    """The container `name` that runs; see `RunningContainer.attach`."""
    attaching = aside(partial(blocking.RunningContainer.attach, name, store=store))
    return RunningContainer.of(await result(attaching, None, f"attaching to {name}"))


def _close(beginning: Future[blocking.RunningContainer]) -> None:
    """Nobody waits for what has begun: on the thread on which it began."""
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().close()
