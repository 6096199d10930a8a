"""The monitor of a VM: QMP, and whatever else its flows wait for."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from pyvirt.errors import PyvirtError
from pyvirt.qmp.event import Event
from pyvirt.qmp.flow import Command, Pause, Until
from pyvirt.running.wire.events import Past
from pyvirt.running.wire.monitor import Monitor

if TYPE_CHECKING:
    from pyvirt.running.engine import Engine


class VMMonitor(Monitor):
    """The monitor of a VM: its flows may also yield what the engine begins."""

    def __init__(self, engine: Engine, sock: socket.socket, **how: Any) -> None:
        self.engine = engine
        super().__init__(sock, **how)

    def _begin(self, step: Any, past: Past) -> Future[Any]:
        if isinstance(step, Command | Until | Pause):
            return super()._begin(step, past)
        return self.engine.begin(step)

    def await_ready(self, timeout: float) -> None:
        """Wait until QEMU's main loop answers; its commands are known from the probe."""
        self._wait(self.ready, timeout, f"the start of {self.engine.vm.binary}")
        self.learn(self.engine.capabilities.schema)

    def listen(self, listener: PowerEvents) -> None:
        """Tell `listener` of the events it names, from now on."""
        self._hub.add(listener)


class PowerEvents:
    """Hears the events that end what runs in the guest."""

    names = ("SHUTDOWN", "RESET", "GUEST_PANICKED", "WATCHDOG")

    def __init__(self, heard: Callable[[Event], None]) -> None:
        self.offer = heard

    def end(self, error: PyvirtError, expected: bool) -> None:
        """The monitor is gone; QEMU's process tells the rest."""
