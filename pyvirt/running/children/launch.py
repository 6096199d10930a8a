"""Start children that the kernel kills when this process ends, whatever ends it.

The bundled program `launch` asks for the parent-death signal and then becomes the child.
The kernel sends that signal when the *thread* that created the child ends, so one thread
that lives as long as the process creates all of them.
"""

from __future__ import annotations

import fcntl
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Self, TypeVar

from pyvirt._native import program
from pyvirt.running.children.forks import close_private, private_pipe

T = TypeVar("T")


def launch(
    argv: Sequence[str],
    standard: Sequence[int],
    pass_fds: Iterable[int] = (),
    cwd: str = "",
    env: Mapping[str, str] | None = None,
    cpus: Iterable[int] = (),
) -> int:
    """The pid of a new child that runs *argv* with *standard* as descriptors 0, 1 and 2.

    Returns when *argv* runs; what kept it from running is raised here.
    """
    kept = sorted(set(pass_fds))
    if kept and kept[0] < len(standard):
        raise ValueError(f"pass_fds holds the standard descriptor {kept[0]}")
    with _duplicates(standard) as sources, _Report() as report:
        settings = {
            "parent": str(os.getpid()),
            "report": str(report.fd),
            "keep": ",".join(map(str, kept)),
            "cpus": ",".join(map(str, cpus)),
            "directory": cwd,
        }
        words = [str(program("launch")), *(f"{key}={value}" for key, value in settings.items())]
        actions = [
            *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(sources)),
            # Onto itself: that is how posix_spawn is told to leave a descriptor open.
            *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in [*kept, report.fd]),
        ]
        pid = _on_lasting_thread(
            lambda: os.posix_spawn(
                words[0],
                [*words, "--", *argv],
                os.environ if env is None else env,
                file_actions=actions,
            )
        )
        failed = report.read()
    if failed:
        os.waitpid(pid, 0)
        raise _error(failed, argv[0], cwd)
    return pid


def _error(report: bytes, program: str, directory: str) -> OSError:
    """The failure that `launch` reported as "ERRNO STEP"."""
    number, _, step = report.decode().partition(" ")
    about = {"exec": program, "directory": directory}.get(step, step)
    return OSError(int(number), os.strerror(int(number)), about)


@contextmanager
def _duplicates(fds: Iterable[int]) -> Iterator[list[int]]:
    """Copies of *fds* above the standard ones, so that no order of copying destroys one."""
    with ExitStack() as stack:
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in fds]
        for fd in copies:
            stack.callback(os.close, fd)
        yield copies


class _Report:
    """A pipe that tells what failed before the exec, or ends when nothing did."""

    def __enter__(self) -> Self:
        self._reader, self.fd = private_pipe()
        self._open = True
        return self

    def read(self) -> bytes:
        """What the child wrote until it closed its end; closes ours."""
        self._close()
        report = b""
        while more := os.read(self._reader, 4096):
            report += more
        return report

    def _close(self) -> None:
        if self._open:
            self._open = False
            close_private(self.fd)

    def __exit__(self, *_: object) -> None:
        self._close()
        os.close(self._reader)


class _Parent:
    """The thread that creates all children."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="pyvirt-parent", daemon=True).start()

    def call(self, function: Callable[[], T]) -> T:
        """The result of *function*, called on this thread."""
        result: Future[T] = Future()

        def work() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        self._work.put(work)
        return result.result()

    def _run(self) -> None:
        while True:
            self._work.get()()


_parent: _Parent | None = None
_birth = threading.Lock()


def _on_lasting_thread(function: Callable[[], T]) -> T:
    global _parent
    with _birth:
        if _parent is None:
            _parent = _Parent()
    return _parent.call(function)


def _forked() -> None:
    """The thread is not in a forked child."""
    global _parent, _birth
    _parent, _birth = None, threading.Lock()


os.register_at_fork(after_in_child=_forked)
