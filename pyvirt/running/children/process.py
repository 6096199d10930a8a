"""A child process of ours: told apart from a successor of its pid, heard to its last word."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, suppress
from typing import Self

from attrs import frozen

from pyvirt.errors import ClosedError, TimedOut
from pyvirt.running.children.launch import launch
from pyvirt.running.host.usage import Usage, usage
from pyvirt.running.waiting.loop import loop

Word = str | os.PathLike[str]


@frozen
class Exit:
    """How a process ended, and the seconds of CPU that it had used.

    `code` and `signal` are both None when something else in this program reaped it.
    """

    code: int | None = None
    signal: int | None = None
    user: float = 0.0
    system: float = 0.0

    @property
    def ok(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}"
        return "ended unseen" if self.code is None else f"exit code {self.code}"


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11, `signal 40` for those without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def spawn(
    argv: Sequence[Word],
    *,
    pass_fds: Iterable[int] = (),
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: Word = "",
    env: Mapping[str, str] | None = None,
    cpus: Iterable[int] = (),
) -> Process:
    """Start *argv* in a session of its own, with *pass_fds* and no other descriptors.

    Without *stdin* it reads nothing; what it writes to *stdout* and *stderr*, unless these
    lead elsewhere, ends up in `Process.last_words`. *cpus* are the host CPUs it may use.
    """
    words = [os.fspath(word) for word in argv]
    with ExitStack() as stack, ExitStack() as kept_on_success:
        null = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, null)
        output, capture = os.pipe()
        kept_on_success.callback(os.close, output)
        stack.callback(os.close, capture)
        os.set_blocking(output, False)
        given = zip((stdin, stdout, stderr), (null, capture, capture), strict=True)
        standard = [default if fd is None else fd for fd, default in given]
        pid = launch(words, standard, pass_fds, os.fspath(cwd), env, cpus)
        watch = _watch(pid, output)
        kept_on_success.pop_all()
    return Process(words, watch)


class Process:
    """A running child. `close()` kills it; so does the end of this process, however it ends.

    `ended` is a future of its `Exit`, completed on the I/O thread within moments of its death.
    A forked child of this process sees only what was known when it was forked.
    """

    def __init__(self, argv: Sequence[str], watch: _Watch) -> None:
        self.argv = tuple(argv)
        self.pid = watch.pid
        self.ended = watch.ended
        self._watch = watch
        self._owner = os.getpid()

    @property
    def name(self) -> str:
        """The file name of its program."""
        return os.path.basename(self.argv[0])

    @property
    def pidfd(self) -> int:
        """A descriptor of it; ClosedError once it has ended."""
        return self._watch.pidfd()

    @property
    def exit(self) -> Exit | None:
        """How it ended, or None while it runs."""
        return self.ended.result() if self.ended.done() else None

    @property
    def last_words(self) -> str:
        """The end of what it wrote, at most 16 KiB."""
        return bytes(self._watch.tail).decode("utf-8", "replace").strip()

    def usage(self) -> Usage:
        """What it uses now; ClosedError once it has ended."""
        with suppress(ProcessLookupError):
            now = usage(self.pid)
            if not self.ended.done():  # Until then, the pid cannot belong to another.
                return now
        raise ClosedError(self.name, str(self.wait()))

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if self._owner != os.getpid():
            raise ClosedError(self.name, f"it belongs to process {self._owner}")
        self._watch.signal(number)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it (SIGKILL)."""
        self.signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> Exit:
        """How it ended; TimedOut when it runs on for *timeout* seconds."""
        if self._owner != os.getpid() and not self.ended.done():
            raise ClosedError(self.name, f"it belongs to process {self._owner}")
        if loop().here() and not self.ended.done():
            raise RuntimeError(f"waiting for {self.name} on the I/O thread would be for ever")
        try:
            return self.ended.result(timeout)
        except TimeoutError:
            raise TimedOut(f"the end of {self.name}", timeout or 0.0, self.last_words) from None

    def glimpse(self, patience: float) -> Exit | None:
        """How it ended, or None when it still runs after `patience` seconds; on any thread."""
        if self.ended.done() or self._owner != os.getpid():
            return self.exit
        if loop().here():
            # Nobody else can bring the news, so look for it; only an end makes it readable.
            if select.select([self.pidfd], [], [], patience)[0]:
                self._watch.bury()
        else:
            wait([self.ended], patience)
        return self.exit

    def close(self) -> None:
        """Kill it and wait for its end. In a forked child: nothing, it is the parent's."""
        if self._owner == os.getpid() and not self.ended.done():
            self.kill()
            self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        ended = getattr(self, "ended", None)  # None when __init__ did not get that far.
        if ended and not ended.done() and self._owner == os.getpid() and not sys.is_finalizing():
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        return f"<{self.name} {self.pid}: {self.exit or 'running'}>"


class _Watch:
    """What the I/O thread knows of a child. It outlives a `Process` that nobody closed."""

    TAIL = 16 * 1024
    CHUNK = 64 * 1024

    def __init__(self, pid: int, output: int) -> None:
        self.pid = pid
        self.ended: Future[Exit] = Future()
        self.tail = bytearray()
        self._output = output
        self._lock = threading.Lock()
        self._pidfd: int | None = os.pidfd_open(pid)

    def begin(self) -> None:
        loop().add(self._output, self._hear)
        loop().add(self.pidfd(), self.bury)

    def pidfd(self) -> int:
        if self._pidfd is None:
            raise ClosedError(f"process {self.pid}", str(self.ended.result()))
        return self._pidfd

    def signal(self, number: int) -> None:
        with self._lock, suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            text = os.read(self._output, self.CHUNK)
            if not text:
                loop().remove(self._output)
            self.tail += text
            del self.tail[: -self.TAIL]

    def bury(self) -> None:
        self._hear()  # CHUNK is what a pipe holds; its own children may go on writing.
        loop().remove(self._output)
        os.close(self._output)
        status = _reap(self.pid)
        with self._lock:
            pidfd, self._pidfd = self.pidfd(), None
        loop().remove(pidfd)
        os.close(pidfd)
        self.ended.set_result(status)


def _watch(pid: int, output: int) -> _Watch:
    try:
        watch = _Watch(pid, output)
        watch.begin()
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # Not yet waited for, so the pid is its own.
        os.waitpid(pid, 0)
        raise
    return watch


def _reap(pid: int) -> Exit:
    try:
        _, status, used = os.wait4(pid, 0)
    except ChildProcessError:
        return Exit()
    code = os.waitstatus_to_exitcode(status)
    return Exit(
        code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        user=used.ru_utime,
        system=used.ru_stime,
    )
