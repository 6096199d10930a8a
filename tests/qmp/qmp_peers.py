"""Both ends of a monitor for tests: real QEMU processes, and peers that follow a script."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

BINARY = "qemu-system-x86_64"
needs_qemu = pytest.mark.skipif(shutil.which(BINARY) is None, reason=f"{BINARY} is not installed")

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "scripted"},'
    b' "capabilities": ["oob"]}}\r\n'
)
DONE = b'{"return": {}}\r\n'
STOP = b'{"timestamp": {"seconds": 1, "microseconds": 500000}, "event": "STOP"}\r\n'


@contextmanager
def qemu(*words: str, machine: str = "none") -> Iterator[tuple[socket.socket, subprocess.Popen]]:
    """The other end of a started QEMU's monitor, and its process."""
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    with theirs:
        process = subprocess.Popen(
            [BINARY, "-M", machine, "-nodefaults", "-display", "none", "-accel", "tcg", "-S",
             "-chardev", f"socket,id=m,fd={fd}", "-mon", "chardev=m,mode=control", *words],
            pass_fds=[fd], stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        ours.close()


@contextmanager
def peer(script: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A connected socket whose other end follows `script` on a thread, and then hangs up."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)

    def follow() -> None:
        with theirs, suppress(OSError):  # the monitor may hang up first
            script(theirs)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join(30)
        assert not thread.is_alive()


def commands(sock: socket.socket) -> Iterator[bytes]:
    """What the monitor asks for, command by command; ends when it hangs up."""
    waiting = b""
    while data := sock.recv(65536):
        waiting += data
        while end := _whole(waiting):
            yield waiting[:end]
            waiting = waiting[end:]


def _whole(waiting: bytes) -> int:
    """Where the first command ends, 0 if it is not whole; no string of ours has a brace."""
    depth = 0
    for at, byte in enumerate(waiting):
        depth += (byte == ord("{")) - (byte == ord("}"))
        if depth == 0:
            return at + 1
    return 0


def negotiate(sock: socket.socket) -> Iterator[bytes]:
    """Greet, accept the capabilities, and go on with the commands that follow."""
    sock.sendall(GREETING)
    asked = commands(sock)
    assert b"qmp_capabilities" in next(asked)
    sock.sendall(DONE)
    return asked


def obedient(sock: socket.socket) -> None:
    """Answer every command with nothing."""
    for _ in negotiate(sock):
        sock.sendall(DONE)
