"""This process's terminal, lent to a guest and always given back as it was."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyvirt.cli.stream import in_thread

if TYPE_CHECKING:
    from pyvirt.cli.run import Task
    from pyvirt.guest.process import Exit, GuestProcess
    from pyvirt.running.lxc.container import RunningContainer
    from pyvirt.running.vm import RunningVM

#: What leaves a serial console: Ctrl-].
LEAVE = b"\x1d"

#: Seconds between two looks at what a serial port wrote.
GLANCE = 0.02


@contextmanager
def raw(fd: int = 0) -> Iterator[None]:
    """Every key goes through unseen; at the end the terminal is as before."""
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def guest(running: RunningVM | RunningContainer, task: Task) -> Exit:
    """Run `task` on a terminal in the guest that is this terminal."""
    env = {"TERM": os.environ.get("TERM", "linux"), **(task.env or {})}
    process = running.spawn(task.command, env=env, cwd=task.cwd, user=task.user, pty=True)
    with process, _resized(process), raw():
        shown = in_thread(lambda: _show(process))
        in_thread(lambda: _type(process))
        end = process.wait()
        shown.result()
    return end


def serial(running: RunningVM) -> None:
    """The first serial port, until Ctrl-] or the end of the VM."""
    console = running.console
    sys.stderr.write(f"Serial port of {running.vm.name}; Ctrl-] leaves.\r\n")
    done = 0
    with raw():
        while True:
            data = console.read(done, 1 << 16)
            done += len(data)
            _write(data)
            if running.exit is not None and not data:
                return
            keys = _keys(0 if data else GLANCE)
            if LEAVE in keys:
                return
            if keys and running.exit is None:
                console.write(keys)


def _keys(patience: float) -> bytes:
    """What was typed within `patience` seconds; the end of input is taken for Ctrl-]."""
    if not select.select([0], [], [], patience)[0]:
        return b""
    return os.read(0, 4096) or LEAVE


def _show(process: GuestProcess) -> None:
    for piece in process.stdout:
        _write(piece)


def _type(process: GuestProcess) -> None:
    while data := os.read(0, 4096):
        process.stdin.write(data)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


@contextmanager
def _resized(process: GuestProcess) -> Iterator[None]:
    """The guest's terminal has the size of this one, now and whenever it changes."""

    def tell(*_: object) -> None:
        size = shutil.get_terminal_size()
        process.resize(size.lines, size.columns)

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        tell()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
