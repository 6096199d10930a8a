"""Every act on a running container, as a flow. The faces only drive them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from pyvirt.container import HostDevice, Limits, Physical, Stats
from pyvirt.container.mount import Filesystem
from pyvirt.errors import SpecError, TimedOut
from pyvirt.flows.steps import Act, Ended, Within, outcome
from pyvirt.guest.carrier import Carrier
from pyvirt.guest.command import check_port
from pyvirt.qmp.flow import Pause
from pyvirt.running.acts.base import BOOT, PATIENCE
from pyvirt.running.acts.commands import Commands
from pyvirt.running.acts.listening import Listening, left
from pyvirt.running.lxc import begin, change
from pyvirt.running.lxc.engine import Engine
from pyvirt.running.lxc.exit import ContainerExit
from pyvirt.running.lxc.signals import number
from pyvirt.running.lxc.stats import stats
from pyvirt.running.waiting.waits import aside

T = TypeVar("T")

#: Seconds between two looks at the state.
GLANCE = 0.02

STATES = ("stopped", "starting", "running", "stopping", "aborting", "freezing", "frozen", "thawed")


class Acts(Commands, Listening):
    """All of them."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.engine = engine

    def agent(self, timeout: float | None = BOOT) -> Act[Carrier]:
        """The agent in it: put there when it is first needed."""
        what = f"an agent in {self.engine.name}"
        carrier = yield Within(self.engine.agent(), timeout, what)
        if not carrier.ready.done():
            yield Within(carrier.ready, timeout, what)
        return carrier  # type: ignore[no-any-return]

    # Life and death

    def status(self) -> Act[str]:
        """LXC's state: "running", "frozen", "stopped", ..."""
        return self.engine.state()
        yield  # as every act

    def pause(self) -> Act[None]:
        """Stop all its processes where they are (LXC's freezer)."""
        yield from self._done(self.engine.handle.freeze, "freezing")

    def resume(self) -> Act[None]:
        """Let its processes go on."""
        yield from self._done(self.engine.handle.thaw, "thawing")

    def freeze(self) -> Act[None]:
        """`pause`, in LXC's word. (A VM's `freeze` is that of its file systems.)"""
        yield from self.pause()

    def thaw(self) -> Act[None]:
        """`resume`, in LXC's word."""
        yield from self.resume()

    def signal(self, name: str) -> Act[None]:
        """Send its first process a signal ("SIGHUP")."""
        self.engine.signal(number(name))
        return
        yield

    def shutdown(
        self, *, timeout: float = PATIENCE, by: str = "auto", firm: bool = True
    ) -> Act[ContainerExit]:
        """Ask its first process to end; how it ended.

        `by` is a signal, or "auto": the one that suits its init. After `timeout` seconds it
        is killed when `firm`, else `TimedOut` is raised and it goes on.
        """
        name = (self.engine.handle.item("lxc.signal.halt") or "SIGPWR") if by == "auto" else by
        self.engine.asked = True
        self.engine.signal(number(name))
        try:
            return (yield Ended(timeout))  # type: ignore[no-any-return]
        except TimedOut:
            if not firm:
                self.engine.asked = False
                raise
        return (yield from self.stop())

    def stop(self) -> Act[ContainerExit]:
        """End it now, without asking. How it ended."""
        self.engine.kill()
        return (yield Ended(PATIENCE))  # type: ignore[no-any-return]

    def reboot(self, *, timeout: float = PATIENCE) -> Act[None]:
        """Ask it to end, kill it after `timeout` seconds, and start it again.

        It keeps its limits; what was plugged is gone.
        """
        if not self.engine.ended.done():
            yield from self.shutdown(timeout=timeout)
        yield aside(partial(begin.again, self.engine))

    def wait(self, timeout: float | None = None) -> Act[ContainerExit]:
        """Wait until it has ended; how it did. `TimedOut` after `timeout` seconds."""
        return (yield Ended(timeout))  # type: ignore[no-any-return]

    def wait_for(
        self,
        *,
        agent: bool = False,
        serial: str | re.Pattern[str] | None = None,
        port: int | None = None,
        state: str | None = None,
        proto: str = "tcp",
        timeout: float = BOOT,
    ) -> Act[re.Match[str] | None]:
        """Wait, at most `timeout` seconds, until all that is asked for is so.

        `agent`: an agent answers. `serial`: a regular expression appears on its console,
        after what was matched before. `port`: something in it listens there. `state`: LXC's
        state is that ("frozen"). The match of `serial` is the result. When it ends
        meanwhile, `ClosedError` is raised.
        """
        if not agent and serial is None and port is None and state is None:
            raise SpecError("agent", "or serial, port or state must be asked for", agent)
        if port is not None:
            check_port(port)
        limit = time.monotonic() + timeout
        match: Any = None
        if serial is not None:
            match = yield from self._serial(serial, timeout)
        if state is not None:
            yield from self._state(state, limit, timeout)
        if agent:
            yield from self.agent(left(limit))
        if port is not None:
            yield from self._port(port, proto, limit, timeout)
        return match  # type: ignore[no-any-return]

    def _state(self, state: str, limit: float, timeout: float) -> Act[None]:
        if state not in STATES:
            raise SpecError("state", f"must be one of {', '.join(STATES)}", state)
        while self.engine.state() != state:
            if time.monotonic() > limit:
                raise TimedOut(f"{self.engine.name} being {state}", timeout)
            yield Pause(GLANCE)

    # What it may use and has

    def limit(self, /, **limits: Any) -> Act[Limits]:
        """Change limits while it runs: fields of `Limits`, such as ``memory="64M"``.

        None lifts one. Each is read back; `LimitError` when the kernel did not take it. The
        result is all limits now.
        """
        return (yield aside(partial(change.limit, self.engine, limits)))  # type: ignore[no-any-return]

    def plug(
        self, part: HostDevice | Filesystem | Physical, *, timeout: float = PATIENCE
    ) -> Act[str]:
        """Give it a device, a mount or an interface of the host while it runs.

        What it is known by there: a path, or the interface's name.
        """
        flow = aside(partial(change.plug, self.engine, part))
        return (yield from self.answered(flow, timeout, "plugging"))

    def unplug(
        self, part: HostDevice | Filesystem | Physical, *, timeout: float = PATIENCE
    ) -> Act[None]:
        """Take a device, a mount or an interface back."""
        flow = aside(partial(change.unplug, self.engine, part))
        yield from self.answered(flow, timeout, "unplugging")

    # Looking

    def addresses(self, *, timeout: float | None = PATIENCE) -> Act[Mapping[str, tuple[str, ...]]]:
        """The addresses of each interface, written as ``10.0.3.2/24``."""
        info = yield from self.guest_info(timeout=timeout)
        return {each.name: each.addresses for each in info.interfaces}

    def stats(self) -> Act[Stats]:
        """What it uses now, as the kernel counts it."""
        return stats(self.engine.groups, self.engine.pid)
        yield

    def _done(self, work: Callable[[], bool], what: str) -> Act[None]:
        """`work` of liblxc, which may take a second; refused when it fails."""
        if not (yield from outcome(aside(work))):
            raise self.engine.refused(what)
