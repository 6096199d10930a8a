"""The queues of a guest that another process runs: reached by its monitor, read from its memory."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, Self, cast

from pyvirt.errors import UnsupportedError
from pyvirt.flows import rings as flow
from pyvirt.running.engine import Engine
from pyvirt.running.rings import rings
from pyvirt.running.rings.memory import LiveMemory
from pyvirt.running.rings.trace import Callback, Terms, Tracer
from pyvirt.running.waiting.waits import aside
from pyvirt.running.wire.address import dial
from pyvirt.running.wire.monitor import PATIENCE, Monitor
from pyvirt.virtio.memory import GuestMemory
from pyvirt.virtio.rings import Rings

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: ucred of unix(7)


class Attached:
    """A guest of another process, by the Unix socket at which its QEMU's monitor listens.

    It is only looked at, and goes on when this is closed. Use it in a ``with``, or `close` it.
    """

    def __init__(self, path: str, *, timeout: float | None = PATIENCE) -> None:
        self.path = path
        with ExitStack() as stack:
            sock = dial(path, timeout)
            self.pid = _listener(sock, path)
            self.monitor = stack.enter_context(
                Monitor.open(sock, timeout=timeout, peer=f"QEMU at {path}")
            )
            asked = self.monitor.execute("query-name", timeout=timeout)
            self.name = str(asked.get("name", f"pid {self.pid}"))
            self._running = os.pidfd_open(self.pid)
            stack.callback(os.close, self._running)
            self._gone, wake = os.pipe()
            stack.callback(os.close, self._gone)
            stack.callback(os.close, wake)
            self.ended: Future[str] = aside(self._watch())
            # What reads memory needs of an engine: whose it is, and when it ends.
            like = SimpleNamespace(
                pid=self.pid, ended=self.ended, vm=SimpleNamespace(name=self.name, memory=None)
            )
            self._memory = LiveMemory(cast(Engine, like))
            self._stack = stack.pop_all()

    @property
    def memory(self) -> GuestMemory:
        """Guest memory by guest-physical addresses."""
        return self.monitor.run(self._memory.now(), PATIENCE)

    def rings(self, device: str | None = None) -> Rings:
        """The virtqueues of all virtio devices, or of `device`, that their drivers have set up."""
        found = self.monitor.run(flow.found(device), PATIENCE)
        return rings(self.memory, found, whole=device is None)

    def trace(
        self,
        *devices: str,
        terms: Terms | None = None,
        recorded: bool = True,
        callback: Callback | None = None,
    ) -> Tracer:
        """Follow the requests to `devices`, or to all; see `RunningVM.trace`.

        Without `recorded` they are only counted.
        """
        wanted: Sequence[str | None] = devices or (None,)
        found = [ring for device in wanted for ring in self.rings(device)]
        tracer = Tracer(found, self.pid, terms or Terms(), recorded=recorded, callback=callback)
        tracer.end_with(self.ended, f"{self.name} ended")
        resets = self.monitor.events("RESET")
        tracer.own(resets.close)
        tracer.end_with(resets.begin(), f"{self.name} was reset")
        return tracer

    def close(self) -> None:
        """Look no longer."""
        self._stack.close()

    def _watch(self) -> Callable[[], str]:
        running, gone = os.dup(self._running), os.dup(self._gone)

        def wait() -> str:
            try:
                poll = select.poll()
                poll.register(running, select.POLLIN)
                poll.register(gone, 0)  # hangs up when this is closed
                poll.poll()
            finally:
                os.close(running)
                os.close(gone)
            return f"{self.name} ended, or is not looked at any more"

        return wait

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Attached to {self.name}: pid {self.pid}, {self.path}>"


def _listener(sock: socket.socket, path: str) -> int:
    """Who listens at the other end (SO_PEERCRED of unix(7))."""
    if sock.family != socket.AF_UNIX:
        sock.close()
        hint = "name a Unix socket of a QEMU on this host"
        raise UnsupportedError("reading guest memory", f"QEMU at {path}", hint)
    said: Any = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(said)[0])
