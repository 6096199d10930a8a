"""A command in a guest with this process's own input and output."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from pyvirt.errors import RunTimedOut
from pyvirt.guest.carrier import LIMIT

if TYPE_CHECKING:
    from pyvirt.cli.run import Task
    from pyvirt.guest.process import Exit, GuestProcess, Reader
    from pyvirt.running.lxc.container import RunningContainer
    from pyvirt.running.vm import RunningVM

_PIECE = 64 << 10


class Sink(Protocol):
    """Where a stream of the guest goes."""

    def write(self, data: bytes) -> None: ...


class Through:
    """To a descriptor of this process, at once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.fd, data) :]


class Kept:
    """In memory, up to a limit."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.data, self.cut, self._limit = bytearray(), False, limit

    def write(self, data: bytes) -> None:
        self.cut = self.cut or len(self.data) + len(data) > self._limit
        self.data += data[: self._limit - len(self.data)]


def stream(running: RunningVM | RunningContainer, task: Task, out: Sink, err: Sink) -> Exit:
    """Run `task` to its end while input and output flow; it is ended when nobody reads."""
    with running.spawn(task.command, env=task.env, cwd=task.cwd, user=task.user) as process:
        pumps = [_pump(process.stdout, out, process), _pump(process.stderr, err, process)]
        threading.Thread(target=_feed, args=(process,), daemon=True).start()
        try:
            end = process.wait(task.timeout)
        except TimeoutError:
            shown = task.command if isinstance(task.command, str) else shlex.join(task.command)
            limit = task.timeout or 0.0
            raise RunTimedOut(shown, limit, "", "", _killed(process)) from None
        for pump in pumps:
            pump.result()
    return end


def _killed(process: GuestProcess) -> bool:
    """Whether the guest confirmed the end of the command within a second."""
    try:
        process.kill().result(1.0)
        process.wait(1.0)
    except TimeoutError:
        return False
    return True


def _pump(reader: Reader, sink: Sink, process: GuestProcess) -> Future[None]:
    """Carry a stream to its end; a sink that fails ends the command."""

    def carry() -> None:
        try:
            for piece in reader:
                sink.write(piece)
        except BaseException:
            process.kill()
            raise

    return in_thread(carry)


def _feed(process: GuestProcess) -> None:
    """This process's standard input, to the command."""
    # Descriptor 0 itself: a daemon thread inside sys.stdin would hold its lock at the end.
    while True:
        try:
            data = os.read(0, _PIECE)
            if not data:
                break
            process.stdin.write(data)
        except Exception:  # no input at all, or the command has ended
            break
    try:
        process.stdin.close()
    except Exception:
        return


def in_thread(act: Callable[[], None]) -> Future[None]:
    """The end of `act`, which runs on a thread of its own."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            act()
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
