"""Programs that hold the other end of a socket of QEMU's: passt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pyvirt.errors import StartError
from pyvirt.qemu.need import Peer
from pyvirt.qemu.render import resolve
from pyvirt.running.children.companion import PATIENCE, find
from pyvirt.running.children.process import Process, spawn


def start(need: Peer, fd: int, supplied: Mapping[str, str]) -> Process:
    """Start the program of `need` with its end `fd`, and wait until it is ready.

    It ends when QEMU's end is closed, so it also ends where the parent-death signal is lost
    because the program changes its user. Raises `UnsupportedError` when it is not
    installed, `StartError` with its last words.
    """
    words = resolve(list(need.arguments), {**supplied, "fd": str(fd)})
    process = spawn([find(need), *words], pass_fds=[fd])
    try:
        _await(process, need.program)
    except BaseException:
        process.close()
        raise
    return process


def _await(process: Process, program: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not _confined(process.pid):
        exit_ = process.exit
        if exit_ is not None:
            raise StartError(program, str(exit_), process.last_words)
        if time.monotonic() > limit:
            raise StartError(program, f"not ready after {PATIENCE:g} s", process.last_words)
        time.sleep(0.002)


def _confined(pid: int) -> bool:
    """Whether it has filtered its system calls: the last thing it does before it serves."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    return "\nSeccomp:\t2\n" in status
