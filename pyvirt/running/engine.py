"""What one running VM holds, and the beginning of every step that its flows take."""

from __future__ import annotations

import itertools
import os
import threading
from concurrent.futures import Future, wait
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pyvirt.devices import Captured
from pyvirt.errors import ClosedError, PyvirtError, UnsupportedError
from pyvirt.flows.steps import Acquire, Act, Ended, Handed, Kill, Release, Within
from pyvirt.guest.carrier import Carrier
from pyvirt.plan import Plan
from pyvirt.qemu.capabilities import Capabilities
from pyvirt.qemu.composition import Placed
from pyvirt.qemu.need import Need
from pyvirt.qmp.event import Event
from pyvirt.running.children.keeper import temporary_directory
from pyvirt.running.children.process import Exit, Process
from pyvirt.running.console import Console, tidy
from pyvirt.running.exit import VMExit, judge, panic, tail, telling
from pyvirt.running.guest.apt import Progress
from pyvirt.running.held import Held, acquire
from pyvirt.running.host.accel import Accelerator
from pyvirt.running.relay import Relay
from pyvirt.running.waiting.loop import loop
from pyvirt.running.waiting.waits import aside, within
from pyvirt.running.wire.talk import PowerEvents, VMMonitor
from pyvirt.vm import VM

T = TypeVar("T")

#: Seconds between QEMU's end and the judgement on it: its last events may still be on the way.
LAST_EVENTS = 0.02

#: Seconds between the end of QEMU's sockets and the end of its process: a moment, unless its
#: core is dumped.
DYING = 0.2

#: Seconds that QEMU gets to end itself when asked, before it is killed.
QUIT = 5.0

#: Resets without an agent's answer after which nobody waits for it any longer. One is normal
#: at each start from warm, when SeaBIOS resets once more.
MANY = 6

#: Seconds in which all resets count as one: Linux asks for it in several ways at once.
BURST = 0.5

#: Bytes of the serial port in which an error looks for what the guest said last.
WORDS = 64 << 10

#: Seconds between two looks at how much the guest has written on its serial ports.
TRIM = 1.0

#: The cause of an end that the guest announced by pvpanic, in QEMU's words.
PANIC = "guest-panic"

#: The cause of an end by a watchdog that was not fed: ours, as QEMU has no word for it.
WATCHDOG = "watchdog"


class Engine:
    """Owns the process, the sockets and the files of one VM. It decides nothing."""

    def __init__(
        self, vm: VM, plan: Plan, accelerator: Accelerator, capabilities: Capabilities
    ) -> None:
        self.vm, self.composition = vm, plan.composition
        self.accelerator, self.capabilities = accelerator, capabilities
        self.temporary = temporary_directory(f"pyvirt-{os.getpid()}-")
        self.directory = self.temporary.path
        self.held: dict[str, Held] = {}
        self.supplied: dict[str, str] = {}
        self.ended: Future[VMExit] = Future()
        self.process: Process | None = None
        self.monitor: VMMonitor | None = None
        self.carriers: list[Carrier] = []
        self.consoles: dict[str, Console] = {}
        self.relays: dict[str, Relay] = {}
        self.cause: str | None = None
        self._resets = 0
        self._last_reset = 0.0
        self._said = 0
        self._owner = os.getpid()
        self._numbers = itertools.count()
        self._closing, self._holding = threading.Lock(), threading.Lock()
        self._closed = False

    def number(self) -> int:
        """A number that no other file of this VM has."""
        return next(self._numbers)

    @property
    def name(self) -> str:
        """What it is called in errors."""
        return self.vm.name

    # What it holds

    def acquire(self, need: Need, progress: Progress | None = None) -> Held:
        """Acquire `need` and remember it under its name."""
        held = acquire(need, self.directory, self.supplied, progress)
        with self._holding:
            self.held[need.name] = held
            self.supplied |= held.values
        return held

    def release(self, name: str) -> None:
        """Give back what was acquired as `name`."""
        with self._holding:
            held = self.held.pop(name, None)
            for key in held.values if held is not None else ():
                self.supplied.pop(key, None)
        if held is not None:
            held.close()

    def check(self, placed: Placed) -> None:
        """Raise `UnsupportedError` when this QEMU cannot have the part."""
        self.capabilities.check((*placed.ports, *placed.options))

    @property
    def pid(self) -> int:
        """The process id of QEMU."""
        assert self.process is not None
        return self.process.pid

    @property
    def open(self) -> bool:
        """Whether this process has it, and has not closed it."""
        return not self._closed and self._owner == os.getpid()

    @property
    def end(self) -> VMExit | None:
        """How it ended, or None while it runs."""
        if self.process is not None and self.process.exit is not None:
            return self.ended.result(QUIT)
        return None

    @property
    def talk(self) -> VMMonitor:
        """The monitor of the QEMU that was started."""
        assert self.monitor is not None
        return self.monitor

    def drive(self, flow: Act[T]) -> T:
        """Run `flow` to its end, waiting on this thread."""
        return self.talk.run(flow)

    # Who answers

    def console_of(self, placed: Placed) -> Console | None:
        """A console of the part, when QEMU captures what it says."""
        backend = getattr(placed.part, "backend", None)
        if not isinstance(backend, Captured):
            return None
        name, own = placed.name, backend.logfile
        keyboard = Path(self.supplied[f"{name}-input"] + ".in")
        if own is not None:
            return Console(name, own, keyboard)
        return Console(name, Path(self.supplied[f"{name}-log"]), keyboard, backend.limit)

    @property
    def carrier(self) -> Carrier:
        """The agent to talk to: the first that has answered, else the first there may be."""
        if not self.carriers:
            hint = "describe the VM with agents=['qga'] and run qemu-guest-agent in the guest"
            raise UnsupportedError("a channel to an agent", f"VM {self.vm.name}", hint)
        return self.answering or self.carriers[0]

    @property
    def answering(self) -> Carrier | None:
        """An agent that has answered."""
        return next((one for one in self.carriers if _answers(one)), None)

    @property
    def console(self) -> Console | None:
        """The first captured serial port."""
        return next(iter(self.consoles.values()), None)

    def first_console(self) -> Console:
        """The first captured serial port; `UnsupportedError` when there is none."""
        if self.console is None:
            hint = "describe one in VM.serials"
            raise UnsupportedError("a captured serial port", f"VM {self.vm.name}", hint)
        return self.console

    # Steps

    def begin(self, step: Any) -> Future[Any]:
        """Begin a step that is not QMP's own."""
        match step:
            case Future():
                return step
            case Within():
                return within(step, self.explain_waiting)
            case Ended():
                what = f"the end of {self.vm.name}"
                return within(Within(self.ended, step.timeout, what), self.explain_waiting)
            case Acquire():
                return aside(partial(self.acquire, step.need))
            case Handed():
                return aside(self.held[step.need].given)
            case Release():
                return aside(partial(self.release, step.need))
            case Kill():
                return aside(self.kill)
            case _:
                raise TypeError(f"a flow cannot yield {step!r}")

    def kill(self) -> None:
        """End QEMU's process now."""
        if self.process is not None:
            self.process.kill()

    # The end

    def explain(self) -> str:
        """Why QEMU's monitor is gone: its exit, its last words, the guest's last lines."""
        if self.process is None:
            return "QEMU was not started"
        # Its sockets close a moment before it is dead.
        exit_ = self.process.glimpse(DYING)
        if exit_ is None:
            return self.explain_waiting() or "it closed its monitor"
        return str(self._judge(exit_))

    def explain_silence(self) -> str:
        """Why an agent will not answer any more."""
        return str(self.ended.result()) if self.ended.done() else self.explain()

    def explain_waiting(self) -> str:
        """What to add to an error about a wait: the guest's last lines, if there are any."""
        line = telling(self.serial_tail())
        return f"the guest's last line is {line!r}" if line else ""

    def serial_tail(self) -> str:
        """The last lines of the first serial port: since the last reset, if there are any."""
        if self.console is None:
            return ""
        fresh = self.console.read(max(self._said, self.console.size - WORDS))
        return tail(tidy(fresh)) or tail(self.console.tail)

    def watch(self) -> None:
        """Hear how QEMU ends, from now on."""
        assert self.process is not None
        assert self.monitor is not None
        self.monitor.listen(PowerEvents(self.powered))
        self.process.ended.add_done_callback(self._died)
        self._trim()

    def _trim(self) -> None:
        """Keep what the guest writes within its limits, as long as it runs."""
        if self.process is None or self.process.exit is not None or self._closed:
            return
        for console in self.consoles.values():
            with suppress(OSError):  # a file system without holes keeps all
                console.trim()
        loop().later(TRIM, self._trim)

    def powered(self, event: Event) -> None:
        """What ran in the guest is gone: nobody there will answer what was asked."""
        if event.name == "RESET":
            self._reset(event.time)
            return
        if event.name == "WATCHDOG":
            if event.data.get("action") == "poweroff":  # QEMU says no more: it calls exit()
                self.cause = WATCHDOG
            return
        if event.name == "GUEST_PANICKED":
            if event.data.get("action") == "run":  # the guest was told to go on
                return
            self.cause = PANIC
        elif self.cause != PANIC:
            self.cause = str(event.data.get("reason", "unknown"))
        self._interrupt(self.carriers, f"the guest ended: {self.cause}")

    def _reset(self, when: float) -> None:
        """Who has not answered yet may still do so, unless the guest never gets that far."""
        if when - self._last_reset > BURST:
            self._resets += 1
            self._last_reset = when
        lost = [one for one in self.carriers if _answers(one)]
        if lost:
            self._resets = 0
            panicked = panic(self.serial_tail())
            self._interrupt(lost, "its kernel panicked" if panicked else "the guest was reset")
        elif self._resets > MANY:
            self._resets = 0
            self._interrupt(self.carriers, "the guest resets again and again")
        if self.console is not None:
            self._said = self.console.size

    def _interrupt(self, carriers: list[Carrier], why: str) -> None:
        tail = self.explain_waiting() if carriers else ""
        error = ClosedError(f"the agent in {self.vm.name}", f"{why}; {tail}" if tail else why)
        for carrier in carriers:
            carrier.interrupt(error)

    def _died(self, future: Future[Exit]) -> None:
        """QEMU's process ended: on the loop's thread. Its last events get a moment."""
        loop().later(LAST_EVENTS, partial(self._bury, future.result()))

    def _bury(self, exit_: Exit) -> None:
        end = self._judge(exit_)
        error = ClosedError(self.vm.name, str(end))
        for console in self.consoles.values():
            console.close(error)
        for carrier in self.carriers:
            carrier.close(error)
        self._close_relays()
        if not self.ended.done():
            self.ended.set_result(end)

    def _close_relays(self) -> None:
        """Forward no port any longer."""
        while self.relays:
            self.relays.popitem()[1].close()

    def _judge(self, exit_: Exit) -> VMExit:
        log = self.process.last_words if self.process is not None else ""
        return judge(exit_, self.cause, log, self.serial_tail())

    def close(self) -> None:
        """End QEMU if it still runs, and give everything back. In a forked child: nothing.

        What an interruption leaves undone, the next call does.
        """
        if self._owner != os.getpid():
            return
        with self._closing, ExitStack() as stack:
            if self._closed:
                return
            stack.callback(self._give_back)
            stack.callback(self._let_go)
            stack.callback(self._kill)
            self._close_relays()
            self._quit()

    def _quit(self) -> None:
        """QEMU flushes its images when it is asked to end."""
        running = self.process is not None and self.process.exit is None
        if running and self.monitor is not None:
            with suppress(PyvirtError):
                self.monitor.execute("quit", timeout=QUIT)
                assert self.process is not None
                self.process.wait(QUIT)

    def _kill(self) -> None:
        if self.process is not None:
            self.process.close()

    def _let_go(self) -> None:
        """No more waits, once it is known how it ended."""
        if self.process is not None:
            wait([self.ended], QUIT)
        if self.monitor is not None:
            self.monitor.close()
        for carrier in self.carriers:
            carrier.close()

    def _give_back(self) -> None:
        for name in reversed(list(self.held)):
            self.release(name)
        self.temporary.close()
        self._closed = True


def _answers(carrier: Carrier) -> bool:
    return carrier.ready.done() and carrier.ready.exception() is None
