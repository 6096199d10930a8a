"""A running VM, awaited: the acts of the blocking face, driven in a task.

Cancelling the task interrupts the act: a command is ended in the guest, a wait is given up,
and a flow that began something undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import Future
from functools import partial, wraps
from inspect import signature
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from pyvirt.aio.console import Console
from pyvirt.aio.monitor import Commands, Events, Job, Monitor, done, result, run
from pyvirt.aio.process import GuestProcess
from pyvirt.aio.trace import Tracer
from pyvirt.flows.steps import Act
from pyvirt.guest.carrier import Command
from pyvirt.qemu.capabilities import Capabilities
from pyvirt.running import vm as blocking
from pyvirt.running.acts import Acts
from pyvirt.running.acts.base import BOOT
from pyvirt.running.exit import VMExit
from pyvirt.running.guest.apt import Progress
from pyvirt.running.host.accel import Accelerator
from pyvirt.running.rings.trace import BUDGET, BUFFER, INTERVAL, SNAP, Callback
from pyvirt.running.vm import result_of
from pyvirt.running.waiting.waits import aside
from pyvirt.running.wire.events import Match
from pyvirt.running.wire.monitor import PATIENCE
from pyvirt.virtio.memory import GuestMemory
from pyvirt.vm import VM

P = ParamSpec("P")
T = TypeVar("T")


def awaiting(
    act: Callable[Concatenate[Acts, P], Act[T]],
) -> Callable[Concatenate[RunningVM, P], Coroutine[Any, Any, T]]:
    """The act as a method to be awaited."""

    @wraps(act)
    async def method(self: RunningVM, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._drive(act(self._acts, *args, **kwargs))

    method.__annotations__ = {**act.__annotations__, "return": result_of(act)}
    method.__signature__ = signature(act).replace(  # type: ignore[attr-defined]
        return_annotation=result_of(act)
    )
    return cast("Callable[Concatenate[RunningVM, P], Coroutine[Any, Any, T]]", method)


class RunningVM:
    """`pyvirt.RunningVM`, awaited: use it in an ``async with``, or await `close`."""

    def __init__(self, running: blocking.RunningVM) -> None:
        self._running = running
        self._engine, self._acts = running._engine, running._acts

    @classmethod
    def of(cls, running: blocking.RunningVM) -> Self:
        """The awaited face of a VM that runs already. Either face closes it."""
        return cls(running)

    # Life and death
    status = awaiting(Acts.status)
    pause = awaiting(Acts.pause)
    resume = awaiting(Acts.resume)
    reset = awaiting(Acts.reset)
    press_power = awaiting(Acts.press_power)
    shutdown = awaiting(Acts.shutdown)
    stop = awaiting(Acts.stop)
    wait = awaiting(Acts.wait)
    wait_for = awaiting(Acts.wait_for)

    # Devices
    plug = awaiting(Acts.plug)
    unplug = awaiting(Acts.unplug)
    insert = awaiting(Acts.insert)
    eject = awaiting(Acts.eject)
    resize = awaiting(Acts.resize)
    throttle = awaiting(Acts.throttle)
    set_link = awaiting(Acts.set_link)
    set_rate = awaiting(Acts.set_rate)
    forward = awaiting(Acts.forward)
    unforward = awaiting(Acts.unforward)
    balloon = awaiting(Acts.balloon)
    plug_cpus = awaiting(Acts.plug_cpus)
    unplug_cpus = awaiting(Acts.unplug_cpus)
    balloon_statistics = awaiting(Acts.balloon_statistics)
    set_watchdog_action = awaiting(Acts.set_watchdog_action)
    resize_memory = awaiting(Acts.resize_memory)
    boot_from = awaiting(Acts.boot_from)
    set_vnc_password = awaiting(Acts.set_vnc_password)
    set_spice_password = awaiting(Acts.set_spice_password)

    # Looking
    screenshot = awaiting(Acts.screenshot)
    screen_text = awaiting(Acts.screen_text)
    send_keys = awaiting(Acts.send_keys)
    type_text = awaiting(Acts.type_text)
    point = awaiting(Acts.point)
    click = awaiting(Acts.click)
    block_statistics = awaiting(Acts.block_statistics)
    network_statistics = awaiting(Acts.network_statistics)
    usage = awaiting(Acts.usage)
    info = awaiting(Acts.info)
    rings = awaiting(Acts.rings)

    # Inside
    login = awaiting(Acts.login)
    run = awaiting(Acts.run)
    put = awaiting(Acts.put)
    get = awaiting(Acts.get)
    read_text = awaiting(Acts.read_text)
    read_bytes = awaiting(Acts.read_bytes)
    write_text = awaiting(Acts.write_text)
    ping = awaiting(Acts.ping)
    guest_info = awaiting(Acts.guest_info)
    freeze = awaiting(Acts.freeze)
    thaw = awaiting(Acts.thaw)
    set_time = awaiting(Acts.set_time)

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

    async def trace(
        self,
        *devices: str,
        interval: float = INTERVAL,
        budget: float = BUDGET,
        snap: int = SNAP,
        buffer: int = BUFFER,
        keep: bool = True,
        realtime: bool = True,
        callback: Callback | None = None,
    ) -> Tracer:
        """Follow every request to `devices` (by id; else to all), from now on, from outside.

        Queues are looked at when the guest kicks a device, and each `interval` seconds while
        something moves, as long as that takes no more than `budget` (a share of one processor); a
        guest that does nothing is not looked at. So the end of a request is seen at the next kick,
        or up to `interval` late: a shorter one tells latencies better, and costs the guest more.
        Of each request `snap` first bytes are kept of what the device reads and of what it
        writes. `buffer` is how many bytes of records may wait to be taken; `keep` keeps those that
        were iterated over for `Tracer.stop`, in memory without a limit. `callback` gets each
        request on a thread of its own. `realtime` looks with a real-time priority, where the host
        allows it: else requests are missed on a busy host, and the guest gets slower.

        It ends with the guest, and when the guest is reset: queues are elsewhere then.
        """
        act = self._acts.trace(
            *devices, interval=interval, budget=budget, snap=snap, buffer=buffer, keep=keep,
            realtime=realtime, callback=callback,
        )  # fmt: skip
        return Tracer(await self._drive(act))

    @property
    def vm(self) -> VM:
        """The description it was started from, with the accelerator that was chosen."""
        return self._running.vm

    @property
    def accelerator(self) -> Accelerator:
        """What runs the guest's code, and why."""
        return self._running.accelerator

    @property
    def capabilities(self) -> Capabilities:
        """What this very QEMU has."""
        return self._running.capabilities

    @property
    def memory(self) -> Coroutine[Any, Any, GuestMemory]:
        """Guest memory by guest-physical addresses, with the modules that are plugged now."""
        return self._drive(self._acts.guest_memory())

    @property
    def qmp(self) -> Commands:
        """Every command of this very QEMU, completed and checked: ``await running.qmp.stop()``."""
        return self._monitor.qmp

    def events(
        self, *names: str, match: Match = None, size: int = 1024, timeout: float | None = None
    ) -> Events:
        """A queue of the events to come: of these names (else all), with data like `match`.

        It holds `size` events and counts what it `dropped`. Iterating it waits at most
        `timeout` seconds for each event. Use it in an ``async with``.
        """
        return Events(self._running.events(*names, match=match, size=size, timeout=timeout))

    async def job(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        fds: Iterable[int] = (),
        timeout: float | None = PATIENCE,
    ) -> Job:
        """Begin a block job with the command `name` ("blockdev-backup", "block-commit", ...)."""
        return await Job.start(self._monitor, name, arguments, fds=fds, timeout=timeout)

    async def jobs(self) -> list[Job]:
        """The jobs that QEMU knows (``query-jobs``)."""
        known = await self._monitor.execute("query-jobs")
        return [Job.attach(self._monitor, job["id"]) for job in known]

    async def migrate(
        self, uri: str, *, fd: int | None = None, timeout: float | None = PATIENCE
    ) -> Job:
        """Begin to migrate to `uri`, or through the descriptor `fd`, which is then named so."""
        return await Job.migrate(self._monitor, uri, fd=fd, timeout=timeout)

    @property
    def pid(self) -> int:
        """The process id of QEMU."""
        return self._running.pid

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its disks, cards and devices."""
        return self._running.parts

    @property
    def console(self) -> Console:
        """The first captured serial port; `consoles` has all by the names of their parts."""
        return Console(self._running.console)

    @property
    def consoles(self) -> dict[str, Console]:
        """All captured ports, by name."""
        return {name: Console(port) for name, port in self._running.consoles.items()}

    @property
    def exit(self) -> VMExit | None:
        """How it ended, or None while it runs."""
        return self._running.exit

    async def close(self) -> None:
        """End it and give everything back. In a forked child: nothing, it is the parent's."""
        await result(aside(self._running.close), None, f"closing {self.vm.name}")

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

    @property
    def _monitor(self) -> Monitor:
        return Monitor.of(self._engine.talk)

    async def _drive(self, flow: Act[T]) -> T:
        with self._engine.talk.waits(flow, None) as waits:
            return await run(waits)


class Starting:
    """A start under way, for ``await`` and for ``async with``."""

    def __init__(self, vm: VM, timeout: float, progress: Progress | None) -> None:
        self._vm, self._timeout, self._progress = vm, timeout, progress
        self._running: RunningVM | None = None

    def __await__(self) -> Generator[Any, None, RunningVM]:
        return self._start().__await__()

    async def __aenter__(self) -> RunningVM:
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

    async def _start(self) -> RunningVM:
        start = blocking.RunningVM.start
        beginning = aside(
            partial(start, self._vm, timeout=self._timeout, progress=self._progress)
        )
        try:
            await done(beginning)
        except BaseException:
            beginning.add_done_callback(_close)
            raise
        return RunningVM.of(beginning.result())


def start(vm: VM, *, timeout: float = 30.0, progress: Progress | None = None) -> Starting:
    """Start `vm`; see `VM.start`. ``async with start(vm) as running``, or await it.

    A start whose task is cancelled leaves nothing behind.
    """
    return Starting(vm, timeout, progress)


def _close(beginning: Future[blocking.RunningVM]) -> None:
    """Nobody waits for what has begun: on the thread on which it began."""
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().close()
