"""A running container: the blocking face."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar, cast

from pyvirt import html
from pyvirt.container import Container
from pyvirt.flows.steps import Act
from pyvirt.running.console import Console
from pyvirt.running.lxc import begin
from pyvirt.running.lxc.acts import Acts
from pyvirt.running.lxc.engine import Engine
from pyvirt.running.lxc.exit import ContainerExit
from pyvirt.running.lxc.store import Store
from pyvirt.running.vm import result_of

if TYPE_CHECKING:
    from pyvirt.running.rootfs.watch import Progress

P = ParamSpec("P")
T = TypeVar("T")


def blocking(
    act: Callable[Concatenate[Acts, P], Act[T]],
) -> Callable[Concatenate[RunningContainer, P], T]:
    """The act as a method that waits for its end."""

    @wraps(act)
    def method(self: RunningContainer, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._engine.drive(act(self._acts, *args, **kwargs))

    method.__annotations__ = {**act.__annotations__, "return": result_of(act)}
    method.__signature__ = signature(act).replace(  # type: ignore[attr-defined]
        return_annotation=result_of(act)
    )
    return cast("Callable[Concatenate[RunningContainer, P], T]", method)


class RunningContainer:
    """A container that runs. Use it in a ``with``, or `close` it.

    One that this process started ends with it, however that ends; one that was started
    detached, or attached to, runs on until `stop` or `destroy`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._acts = Acts(engine)
        self._users = "privileged" if "lxc.idmap" not in self.config else "unprivileged"

    @classmethod
    def start(
        cls,
        container: Container,
        *,
        timeout: float = 30.0,
        progress: Progress | None = None,
        detach: bool = False,
        store: Store | None = None,
    ) -> Self:
        """Start `container`; see `Container.start`. `store` is where containers live."""
        return cls(
            begin.start(container, timeout=timeout, progress=progress, detach=detach, store=store)
        )

    @classmethod
    def attach(cls, name: str, *, store: Store | None = None) -> Self:
        """The container `name` that runs, whoever started it. Closing it leaves it running.

        Raises `SpecError` when there is none of that name, `ClosedError` when it has ended.
        """
        return cls(begin.attach(name, store=store))

    # Life and death
    status = blocking(Acts.status)
    pause = blocking(Acts.pause)
    resume = blocking(Acts.resume)
    freeze = blocking(Acts.freeze)
    thaw = blocking(Acts.thaw)
    signal = blocking(Acts.signal)
    reboot = blocking(Acts.reboot)
    shutdown = blocking(Acts.shutdown)
    stop = blocking(Acts.stop)
    wait = blocking(Acts.wait)
    wait_for = blocking(Acts.wait_for)

    # What it may use and has
    limit = blocking(Acts.limit)
    plug = blocking(Acts.plug)
    unplug = blocking(Acts.unplug)

    # Looking
    addresses = blocking(Acts.addresses)
    stats = blocking(Acts.stats)
    network_statistics = blocking(Acts.network_statistics)

    # Inside
    run = blocking(Acts.run)
    spawn = blocking(Acts.spawn)
    put = blocking(Acts.put)
    get = blocking(Acts.get)
    read_text = blocking(Acts.read_text)
    read_bytes = blocking(Acts.read_bytes)
    write_text = blocking(Acts.write_text)
    ping = blocking(Acts.ping)
    guest_info = blocking(Acts.guest_info)

    @property
    def container(self) -> Container:
        """The description it was started from, with what its image says, and its limits now."""
        return self._engine.container

    @property
    def name(self) -> str:
        """What it is found by."""
        return self._engine.name

    @property
    def place(self) -> Path:
        """Its directory in the store."""
        return self._engine.place

    @property
    def pid(self) -> int:
        """The process id of its first process on this host; -1 when it has ended."""
        return self._engine.pid

    @property
    def console(self) -> Console:
        """What its processes write on /dev/console, and a keyboard for them."""
        return self._engine.console

    @property
    def log(self) -> str:
        """The end of what liblxc wrote down about it."""
        return self._engine.log()

    @property
    def config(self) -> str:
        """The configuration that liblxc was given."""
        return (self._engine.place / "config").read_text()

    @property
    def exit(self) -> ContainerExit | None:
        """How it ended, or None while it runs."""
        return self._engine.end

    def close(self) -> None:
        """End it if it is ours, and give everything back. In a forked child: nothing."""
        self._engine.close()

    def destroy(self) -> None:
        """End it and remove all of it, even if it was started detached."""
        self._engine.destroy()

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
        return f"<RunningContainer {self.name}: {state}, {self._users}>"

    def _repr_html_(self) -> str:
        rows = {
            "state": self._engine.state() if self.exit is None else str(self.exit),
            "place": str(self.place),
            "console": html.Output(self._engine.serial_tail()),
        }
        return html.card(f"Running container {self.name}", rows)
