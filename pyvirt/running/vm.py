"""A running VM: the blocking face."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from pyvirt import html
from pyvirt.flows.steps import Act
from pyvirt.qemu.capabilities import Capabilities
from pyvirt.qmp.commands import Commands
from pyvirt.running.acts import Acts
from pyvirt.running.console import Console
from pyvirt.running.engine import Engine
from pyvirt.running.exit import VMExit
from pyvirt.running.guest.apt import Progress
from pyvirt.running.host.accel import Accelerator
from pyvirt.running.start import start
from pyvirt.running.wire.events import Events, Match
from pyvirt.running.wire.job import Job
from pyvirt.running.wire.monitor import PATIENCE
from pyvirt.virtio.memory import GuestMemory
from pyvirt.vm import VM

P = ParamSpec("P")
T = TypeVar("T")


def blocking(
    act: Callable[Concatenate[Acts, P], Act[T]],
) -> Callable[Concatenate[RunningVM, P], T]:
    """The act as a method that waits for its end."""

    @wraps(act)
    def method(self: RunningVM, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._engine.drive(act(self._acts, *args, **kwargs))

    method.__annotations__ = {**act.__annotations__, "return": result_of(act)}
    method.__signature__ = signature(act).replace(  # type: ignore[attr-defined]
        return_annotation=result_of(act)
    )
    return cast("Callable[Concatenate[RunningVM, P], T]", method)


def result_of(act: Callable[..., object]) -> str:
    """What an act results in, as its annotation says: ``Act[int]`` gives ``int``."""
    return str(act.__annotations__.get("return", "None")).removeprefix("Act[").removesuffix("]")


class RunningVM:
    """A VM that this process started and owns. Use it in a ``with``, or `close` it.

    It ends with this process, however that ends.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._acts = Acts(engine)

    @classmethod
    def start(cls, vm: VM, *, timeout: float, progress: Progress | None = None) -> Self:
        """Start `vm`, and wait until QEMU answers; see `VM.start`."""
        return cls(start(vm, timeout=timeout, progress=progress))

    # Life and death
    status = blocking(Acts.status)
    pause = blocking(Acts.pause)
    resume = blocking(Acts.resume)
    reset = blocking(Acts.reset)
    press_power = blocking(Acts.press_power)
    shutdown = blocking(Acts.shutdown)
    stop = blocking(Acts.stop)
    wait = blocking(Acts.wait)
    wait_for = blocking(Acts.wait_for)

    # Devices
    plug = blocking(Acts.plug)
    unplug = blocking(Acts.unplug)
    insert = blocking(Acts.insert)
    eject = blocking(Acts.eject)
    resize = blocking(Acts.resize)
    throttle = blocking(Acts.throttle)
    set_link = blocking(Acts.set_link)
    set_rate = blocking(Acts.set_rate)
    forward = blocking(Acts.forward)
    unforward = blocking(Acts.unforward)
    balloon = blocking(Acts.balloon)
    plug_cpus = blocking(Acts.plug_cpus)
    unplug_cpus = blocking(Acts.unplug_cpus)
    balloon_statistics = blocking(Acts.balloon_statistics)
    set_watchdog_action = blocking(Acts.set_watchdog_action)
    resize_memory = blocking(Acts.resize_memory)
    boot_from = blocking(Acts.boot_from)
    set_vnc_password = blocking(Acts.set_vnc_password)
    set_spice_password = blocking(Acts.set_spice_password)

    # Looking
    screenshot = blocking(Acts.screenshot)
    screen_text = blocking(Acts.screen_text)
    send_keys = blocking(Acts.send_keys)
    type_text = blocking(Acts.type_text)
    point = blocking(Acts.point)
    click = blocking(Acts.click)
    block_statistics = blocking(Acts.block_statistics)
    network_statistics = blocking(Acts.network_statistics)
    usage = blocking(Acts.usage)
    info = blocking(Acts.info)
    rings = blocking(Acts.rings)
    trace = blocking(Acts.trace)

    # Inside
    login = blocking(Acts.login)
    run = blocking(Acts.run)
    spawn = blocking(Acts.spawn)
    put = blocking(Acts.put)
    get = blocking(Acts.get)
    read_text = blocking(Acts.read_text)
    read_bytes = blocking(Acts.read_bytes)
    write_text = blocking(Acts.write_text)
    ping = blocking(Acts.ping)
    guest_info = blocking(Acts.guest_info)
    freeze = blocking(Acts.freeze)
    thaw = blocking(Acts.thaw)
    set_time = blocking(Acts.set_time)

    @property
    def vm(self) -> VM:
        """The description it was started from, with the accelerator that was chosen."""
        return self._engine.vm

    @property
    def accelerator(self) -> Accelerator:
        """What runs the guest's code, and why."""
        return self._engine.accelerator

    @property
    def capabilities(self) -> Capabilities:
        """What this very QEMU has."""
        return self._engine.capabilities

    @property
    def memory(self) -> GuestMemory:
        """Guest memory by guest-physical addresses, with the modules that are plugged now."""
        return self._engine.drive(self._acts.guest_memory())

    @property
    def qmp(self) -> Commands[Any]:
        """Every command of this very QEMU, completed and checked; `execute` is the raw way."""
        return self._engine.talk.qmp

    def events(
        self, *names: str, match: Match = None, size: int = 1024, timeout: float | None = None
    ) -> Events:
        """A queue of the events to come: of these names (else all), with data like `match`.

        It holds `size` events and counts what it `dropped`. Iterating it waits at most
        `timeout` seconds for each event. Use it in a ``with``.
        """
        self._engine.capabilities.check_events(names)
        return self._engine.talk.events(*names, match=match, size=size, timeout=timeout)

    def job(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        fds: Iterable[int] = (),
        timeout: float | None = PATIENCE,
    ) -> Job:
        """Begin a block job with the command `name` ("blockdev-backup", "block-commit", ...)."""
        return Job.start(self._engine.talk, name, arguments, fds=fds, timeout=timeout)

    def jobs(self) -> list[Job]:
        """The jobs that QEMU knows (``query-jobs``)."""
        known = self._engine.talk.execute("query-jobs")
        return [Job.attach(self._engine.talk, job["id"]) for job in known]

    def migrate(
        self, uri: str, *, fd: int | None = None, timeout: float | None = PATIENCE
    ) -> Job:
        """Begin to migrate to `uri`, or through the descriptor `fd`, which is then named so."""
        return Job.migrate(self._engine.talk, uri, fd=fd, timeout=timeout)

    @property
    def pid(self) -> int:
        """The process id of QEMU."""
        return self._engine.pid

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its disks, cards and devices."""
        return tuple(self._engine.composition.placed)

    @property
    def console(self) -> Console:
        """The first captured serial port; `consoles` has all by the names of their parts."""
        return self._engine.first_console()

    @property
    def consoles(self) -> dict[str, Console]:
        """All captured ports, by name."""
        return dict(self._engine.consoles)

    @property
    def exit(self) -> VMExit | None:
        """How it ended, or None while it runs."""
        return self._engine.end

    def close(self) -> None:
        """End it and give everything back. In a forked child: nothing, it is the parent's."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None and engine.open and not sys.is_finalizing():
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.exit is None else self.exit.reason
        return f"<RunningVM {self.vm.name}: {state}, {self.accelerator}>"

    def _repr_html_(self) -> str:
        rows = {
            "state": "running" if self.exit is None else str(self.exit),
            "QEMU": f"{self.capabilities.version}, pid {self.pid}",
            "accelerator": str(self.accelerator),
            "parts": self.parts,
            "serial": html.Output(self._engine.serial_tail()),
        }
        return html.card(f"Running VM {self.vm.name}", rows)
