"""What one running container holds, and the beginning of every step that its flows take."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pyvirt.container import Container
from pyvirt.errors import ClosedError, ContainerError, StartError, TimedOut, own
from pyvirt.flows.steps import Act, Ended, Within
from pyvirt.lxc import log
from pyvirt.qmp.flow import Pause
from pyvirt.running.agents.native import NativeAgent
from pyvirt.running.children.keeper import forget, keep, keep_group
from pyvirt.running.console import tidy
from pyvirt.running.exit import tail, telling
from pyvirt.running.lxc import entering
from pyvirt.running.lxc.console import ContainerConsole
from pyvirt.running.lxc.exit import ContainerExit, judge
from pyvirt.running.lxc.groups import Groups
from pyvirt.running.lxc.handle import Handle
from pyvirt.running.lxc.store import Store
from pyvirt.running.lxc.watch import Watched
from pyvirt.running.waiting.conduct import conduct
from pyvirt.running.waiting.drive import Waits, drive
from pyvirt.running.waiting.loop import loop
from pyvirt.running.waiting.waits import aside, within

T = TypeVar("T")

#: Seconds that liblxc's monitor gets to clean up once the first process is dead.
BURIAL = 30.0

#: Seconds that somebody else may work on the container before an act gives up.
LOCK = 30.0

#: Seconds between two looks at how much was written on the console.
TRIM = 1.0

#: Seconds between two looks whether the command of a container runs.
GLANCE = 0.001

#: Exit codes of csrc/programs/contain.c for a command that it could not run.
NOT_RUN = (126, 127)

#: Bytes of the log in which an error looks for the reason.
WORDS = 256 << 10


class Engine:
    """Owns one container: its processes, its control groups, its directory.

    With `detached` it owns nothing: it only talks. With `kept` the directory stays.
    """

    def __init__(
        self,
        container: Container,
        store: Store,
        place: Path,
        groups: Groups,
        *,
        detached: bool,
        kept: bool,
    ) -> None:
        self.container, self.store, self.place, self.groups = container, store, place, groups
        self.detached, self.kept = detached, kept
        self.name = place.name
        self.handle = Handle(self.name, store.root)
        self.console = ContainerConsole(f"the console of {self.name}", place / "console",
                                        self.handle)  # fmt: skip
        self.ended: Future[ContainerExit] = Future()
        self.first: Watched | None = None
        self.asked = False
        self._agent: Future[NativeAgent] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False

    # Life

    def start(self, command: tuple[str, ...]) -> None:
        """Start it with `command` as its first process; `StartError` with liblxc's reason."""
        self._keep()
        if not entering.start(self.handle, command):
            raise StartError(f"container {self.name}", self._why_not())
        self.watch()

    def watch(self) -> None:
        """Hear how it ends, from now on."""
        pid = self.handle.init_pid()
        if pid <= 0:
            self._gone(self.ended)
            return
        self.first = Watched.first(pid)
        if self.first is None:
            self._gone(self.ended)
            return
        self._trim(self.console)
        ended = self.ended
        self.first.monitor.add_done_callback(lambda _: self._gone(ended))

    def contained(self) -> None:
        """Wait until its command runs; `StartError` when nothing of it ever will."""
        deadline = time.monotonic() + BURIAL
        while not self.ended.done() and time.monotonic() < deadline:
            with suppress(OSError):
                if Path(f"/proc/{self.handle.init_pid()}/comm").read_text() == "contained\n":
                    return
            time.sleep(GLANCE)
        end = self.end
        words = self.serial_tail().rpartition("\n")[2]
        if end is not None and end.code in NOT_RUN and words.startswith("contain: "):
            raise StartError(f"container {self.name}", words.removeprefix("contain: "))

    def _trim(self, console: ContainerConsole) -> None:
        """Keep what is said on the console within its limit, as long as somebody speaks."""
        if self.ended.done() or self._closed or console is not self.console:
            return
        with suppress(OSError):  # a file system without holes keeps all
            console.trim()
        loop().later(TRIM, partial(self._trim, console))

    def renew(self) -> None:
        """Begin again, after an end: nobody who waited for that is forgotten."""
        self.ended, self.asked = Future(), False
        self.console = ContainerConsole(self.console.name, self.console.log, self.handle)
        with self._lock:
            self._agent = None

    @property
    def end(self) -> ContainerExit | None:
        """How it ended, or None while it runs."""
        return self.ended.result() if self.ended.done() else None

    @property
    def pid(self) -> int:
        """The pid of its first process on this host; -1 when it has ended."""
        return -1 if self.ended.done() else self.handle.init_pid()

    def state(self) -> str:
        return "stopped" if self.ended.done() else self.handle.state()

    def signal(self, number: int) -> None:
        """Send its first process a signal; nothing happens when it has ended."""
        pid = self.handle.init_pid()
        with suppress(ProcessLookupError):
            if pid > 0 and not self.ended.done():
                fd = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(fd, number)
                finally:
                    os.close(fd)

    def kill(self) -> None:
        """End it now. In cgroup v1 what is frozen does not even die."""
        self.asked = True
        self.signal(signal.SIGKILL)
        if not self.ended.done() and self.handle.state() == "frozen":
            self.handle.thaw()

    def _gone(self, ended: Future[ContainerExit]) -> None:
        """liblxc's monitor is done, and with it the container: on the loop's thread."""
        end = self._judge()
        error = ClosedError(f"container {self.name}", str(end))
        with self._lock:
            agent, self._agent = self._agent, _failed(error)
        if agent is not None:
            agent.add_done_callback(partial(_close, error=error))
        self.console.close(error)
        if not ended.done():
            ended.set_result(end)

    def _judge(self) -> ContainerExit:
        said = self.log()
        words = "\n".join(log.causes(said)[-5:])
        return judge(log.ending(said), self.asked, words, self.serial_tail())

    # What it says

    def log(self) -> str:
        """The end of what liblxc wrote down."""
        try:
            with (self.place / "log").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - WORDS))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def serial_tail(self) -> str:
        """The last lines of its console."""
        console = self.console
        return tail(tidy(console.read(max(0, console.size - WORDS))))

    def explain_waiting(self) -> str:
        """What to add to an error about a wait."""
        line = telling(self.serial_tail())
        return f"its console's last line is {line!r}" if line else ""

    def explain_silence(self) -> str:
        """Why its agent will not answer any more."""
        return str(self.ended.result()) if self.ended.done() else "the agent in it ended"

    def refused(self, what: str) -> ContainerError:
        """What to raise when liblxc did not do `what`."""
        said = log.errors(self.log())
        return ContainerError(self.name, what, said[-1] if said else "")

    def _why_not(self) -> str:
        said = log.errors(self.log())
        console = self.serial_tail()
        return "; ".join(said[:2]) or console or "liblxc did not say why"

    # Who answers

    @property
    def carrier(self) -> NativeAgent:
        """The agent in it, once `agent` is done."""
        return self.agent().result()

    def agent(self) -> Future[NativeAgent]:
        """The agent in it: the one that runs, or a new one."""
        with self._lock:
            old = self._agent
            if old is None or (not self.ended.done() and _lost(old)):
                self._agent = aside(self._enter)
            return self._agent  # type: ignore[return-value]

    def _enter(self) -> NativeAgent:
        sock = entering.agent(self.handle, self.container.env, root=self._has_root())
        return NativeAgent(sock, self.explain_silence, peer=f"the agent in {self.name}")

    def enter(self, name: str, words: list[str], also: int = -1) -> Future[int]:
        """Run our program `name` in it; its exit code, or minus its signal."""
        root = self._has_root()
        return entering.enter(self.handle, name, words, {}, -1, root=root, also=also)

    def _has_root(self) -> bool:
        return any(line.split()[0] == "0" for line in self._uid_map())

    def _uid_map(self) -> list[str]:
        with suppress(OSError):
            return Path(f"/proc/{self.handle.init_pid()}/uid_map").read_text().splitlines()
        return ["0"]

    def first_console(self) -> ContainerConsole:
        return self.console

    # Steps

    def drive(self, flow: Act[T]) -> T:
        """Run `flow` to its end, waiting on this thread."""
        waits = self.waits(flow)
        try:
            wait = next(waits)
            while True:
                try:
                    _await(*wait)
                except BaseException as interruption:
                    wait = waits.throw(interruption)
                else:
                    wait = next(waits)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            waits.close()

    def waits(self, flow: Act[T]) -> Waits[T]:
        """All waits of `flow`, in order, for a face that waits in its own way."""
        return drive(flow, self.begin, None)

    def begin(self, step: Any) -> Future[Any]:
        """Begin a step."""
        match step:
            case Future():
                return step
            case Within():
                return within(step, self.explain_waiting)
            case Ended():
                what = f"the end of {self.name}"
                return within(Within(self.ended, step.timeout, what), self.explain_waiting)
            case Pause():
                passed: Future[None] = Future()
                loop().later(step.seconds, partial(_settle, passed))
                return passed
            case _:
                raise TypeError(f"a flow cannot yield {step!r}")

    def conduct(self, flow: Act[T]) -> Future[T]:
        """Run `flow` by itself."""
        return conduct(flow, self.begin)

    # The end

    @property
    def open(self) -> bool:
        """Whether this process has it, and has not closed it."""
        return not self._closed and not self.detached and self._owner == os.getpid()

    def close(self) -> None:
        """End it if it is ours, and give everything back. In a forked child: nothing."""
        if self._owner != os.getpid():
            return
        with self._closing:
            if self._closed:
                return
            if self.detached:
                self._let_go()
            else:
                self._remove()
            self._closed = True

    def destroy(self) -> None:
        """End it and remove everything, even if it is detached."""
        with self._closing:
            self.kept = False
            self._remove()
            self._closed = True

    def _remove(self) -> None:
        with self.store.lock(self.name, LOCK), ExitStack() as stack:
            stack.callback(self._forget)
            stack.callback(self._clear)
            stack.callback(self._let_go)
            self.finish()

    def finish(self) -> None:
        """Kill it, and wait until nothing of it runs."""
        if self.first is not None and not self.ended.done():
            self.kill()
            self._wait(self.ended)

    def _wait(self, ended: Future[ContainerExit]) -> None:
        deadline = time.monotonic() + BURIAL
        while not ended.done():
            with suppress(TimeoutError):
                ended.result(0.5)
            if time.monotonic() > deadline:
                raise TimedOut(f"the end of {self.name}", BURIAL, self.log()[-200:])
            if not ended.done():
                self.kill()

    def _let_go(self) -> None:
        error = ClosedError(f"container {self.name}", "it was closed here")
        with self._lock:
            agent, self._agent = self._agent, _failed(error)
        if agent is not None:
            agent.add_done_callback(partial(_close, error=error))
        self.console.close(error)
        self.handle.close()

    def _clear(self) -> None:
        self.groups.remove()
        if not self.kept and self.place.exists():
            shutil.rmtree(self.place)
            self.store.forget(self.name)

    def _keep(self) -> None:
        """Have it ended and removed when this process is gone."""
        if self.detached:
            return
        keep_group(self.groups.whole)
        for directory in self.groups.directories():
            keep(directory)
        if not self.kept:
            keep(self.place)

    def detach(self) -> None:
        """From now on it belongs to nobody."""
        self._forget()
        self.detached = True

    def release(self) -> None:
        """Give back what is not a directory of the store; nothing runs any more."""
        self._let_go()
        self.groups.remove()
        self._forget()
        self._closed = True

    def _forget(self) -> None:
        for path in (self.groups.whole, *self.groups.directories(), self.place):
            forget(path)


def _await(future: Future[Any], deadline: float | None) -> None:
    """Return when `future` is done; raises `TimeoutError` when it is not in time."""
    if loop().here() and not future.done():
        raise RuntimeError("the I/O thread must not wait for what only it can bring")
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    with suppress(Exception):
        future.exception(left)
    if not future.done():
        raise TimeoutError


def _settle(future: Future[None]) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(None)


def _failed(error: Exception) -> Future[NativeAgent]:
    future: Future[NativeAgent] = Future()
    future.set_exception(error)
    return future


def _close(agent: Future[NativeAgent], error: Exception) -> None:
    if not agent.cancelled() and agent.exception() is None:
        agent.result().close(own(error))


def _lost(agent: Future[NativeAgent]) -> bool:
    """Whether nobody answers there any longer."""
    return agent.done() and (agent.cancelled() or agent.exception() is not None
                             or agent.result().lost)  # fmt: skip
