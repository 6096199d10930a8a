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
from pathlib import Path

from pyvirt._native import program
from pyvirt.errors import UnsupportedError
from pyvirt.running.lxc.handle import Handle
from pyvirt.running.waiting.loop import loop

#: The descriptors of a program in a container: the program itself, and one thing more.
_PROGRAM, ALSO = 3, 4

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@cache
def sealed(name: str) -> int:
    """A descriptor of our program `name`, in memory that nobody can change."""
    path = _own(name)
    fd = os.memfd_create(f"pyvirt-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    data = path.read_bytes()
    while data:
        data = data[os.write(fd, data) :]
    os.fchmod(fd, 0o555)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def _own(name: str) -> Path:
    path = program(name)
    if not path.is_file():
        hint = "build pyvirt with a C compiler and a static C library"
        raise UnsupportedError(f"pyvirt's program {name}", str(path.parent), hint)
    return path


def start(handle: Handle, command: Sequence[str]) -> bool:
    """Start the container with `command` as its first process; whether that runs."""
    words = ["start", handle.offset("want_daemonize"), handle.offset("start"), *command]
    pid = _spawn(handle, words, -1)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    except ChildProcessError:  # something else in this program reaped it
        return handle.init_pid() > 0


def enter(
    handle: Handle, name: str, words: Sequence[str], env: Mapping[str, str], stdin: int, *,
    root: bool, also: int = -1,
) -> Future[int]:  # fmt: skip
    """Run our program `name` in the container; its exit code, or minus its signal.

    It has the descriptor `also` as `ALSO`.
    """
    variables = [f"{key}={value}" for key, value in env.items()]
    who = [handle.offset("attach"), "0" if root else "-1", str(_PROGRAM)]
    argv = ["attach", *who, str(len(variables)), *variables]
    argv += [f"/proc/self/fd/{_PROGRAM}", *words]
    return reaped(_spawn(handle, argv, stdin, sealed(name), also))


def _spawn(
    handle: Handle, words: Sequence[str], stdin: int, program: int = -1, also: int = -1
) -> int:
    """The pid of a small process that lets liblxc do what it does by copying its caller."""
    with ExitStack() as stack:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, null)
        wanted = (null if stdin < 0 else stdin, null, null, program, also)
        # Above all targets first, so that no order of copying destroys one.
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ALSO + 1) if fd >= 0 else fd
                  for fd in wanted]  # fmt: skip
        for copy in copies:
            if copy >= 0:
                stack.callback(os.close, copy)
        actions = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate(copies) if fd >= 0]
        path = str(_own("enter"))
        argv = [path, os.fspath(handle.root), handle.name, *words]
        return os.posix_spawn(path, argv, os.environ, file_actions=actions)


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
