"""Programs of pyvirt's own inside a container: the agent, and what mounts.

They are run from sealed memory, never from a file: a process in the container can open the
program of any other through /proc, and must not be able to change the host's (what
CVE-2019-5736 was).
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from functools import cache

from pyvirt._native import program
from pyvirt.errors import ContainerError, UnsupportedError
from pyvirt.running.loop import loop
from pyvirt.running.lxc.handle import Handle

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@cache
def sealed(name: str) -> int:
    """A descriptor of our program `name`, in memory that nobody can change."""
    path = program(name)
    if not path.is_file():
        hint = "build pyvirt with a C compiler and a static C library"
        raise UnsupportedError(f"pyvirt's program {name}", str(path.parent), hint)
    fd = os.memfd_create(f"pyvirt-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    data = path.read_bytes()
    while data:
        data = data[os.write(fd, data) :]
    os.fchmod(fd, 0o555)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def enter(
    handle: Handle, name: str, words: Sequence[str], env: Mapping[str, str], stdin: int, *,
    root: bool,
) -> Future[int]:  # fmt: skip
    """Start our program `name` in the container; its exit code, or minus its signal."""
    argv = [f"/proc/self/fd/{sealed(name)}", *words]
    with ExitStack() as stack:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, null)
        fds = (null if stdin < 0 else stdin, null, null)
        pid = handle.attach(argv, fds, env, root=root)
    if pid < 0:
        raise ContainerError(handle.name, f"entering it to run {name}")
    return reaped(pid)


def agent(handle: Handle, env: Mapping[str, str], *, root: bool) -> socket.socket:
    """Our end of a connection to an agent in the container."""
    ours, its = socket.socketpair()
    try:
        with its:
            enter(handle, "agent", ["--fd", "0"], env, its.fileno(), root=root)
    except BaseException:
        ours.close()
        raise
    return ours


def reaped(pid: int) -> Future[int]:
    """How child `pid` ended, once it has: nothing in a container ends before all its processes
    are reaped, those of ours among them."""
    ended: Future[int] = Future()
    pidfd = os.pidfd_open(pid)

    def bury() -> None:
        loop().remove(pidfd)
        os.close(pidfd)
        code = 0
        with suppress(ChildProcessError):  # something else in this program reaped it
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        ended.set_result(code)

    loop().add(pidfd, bury)
    return ended
