"""Programs that run beside QEMU and end with it: swtpm, virtiofsd, passt."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from pyvirt.errors import StartError, UnsupportedError
from pyvirt.qemu.need import Companion, Peer
from pyvirt.qemu.render import resolve
from pyvirt.running.children.process import Process, spawn

#: Where Debian and Fedora keep programs that are not on the PATH.
PLACES = ("/usr/lib/qemu", "/usr/libexec", "/usr/libexec/qemu")

PATIENCE = 10.0


class Running:
    """A companion that is ready: its `socket` accepts connections."""

    def __init__(self, process: Process, directory: Path, socket: Path) -> None:
        self.process, self.directory, self.socket = process, directory, socket

    def close(self) -> None:
        self.process.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def start(need: Companion, directory: Path, supplied: Mapping[str, str]) -> Running:
    """Start the program of `need` in a directory of its own and wait for its socket.

    Raises `UnsupportedError` when it is not installed, `StartError` with its last words.
    """
    program = find(need)
    own = directory / need.name
    own.mkdir(mode=0o700)
    values = {**supplied, "directory": str(own)}
    words = [str(word) for word in resolve(list(need.arguments), values)]
    process = spawn([program, *words], env={**os.environ, **need.environment}, cwd=str(own))
    running = Running(process, own, own / need.socket)
    try:
        _await(running, need.program)
    except BaseException:
        running.close()
        raise
    return running


def find(need: Companion | Peer) -> str:
    """The program's path."""
    path = shutil.which(need.program) or shutil.which(
        need.program, path=os.pathsep.join(PLACES)
    )
    if path is None:
        raise UnsupportedError(need.program, "this host", need.hint)
    return path


def _await(running: Running, program: str) -> None:
    limit = time.monotonic() + PATIENCE
    # None of these programs says when it is ready, and a trial connection would be taken
    # for QEMU's: the kernel's list of sockets is asked instead.
    while not _listens(running.socket):
        exit_ = running.process.exit
        if exit_ is not None:
            raise StartError(program, str(exit_), running.process.last_words)
        if time.monotonic() > limit:
            raise StartError(program, f"no socket after {PATIENCE:g} s", running.process.last_words)
        time.sleep(0.002)


def _listens(path: Path) -> bool:
    """Whether a Unix socket at `path` accepts connections (``__SO_ACCEPTCON``, unix(7))."""
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines():
        words = line.split(maxsplit=7)
        if len(words) == 8 and words[7] == str(path):
            return bool(int(words[3], 16) & 0x10000)
    return False
