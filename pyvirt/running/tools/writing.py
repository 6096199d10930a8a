"""A write that is under way: a future that can be told to stop, and what drives it.

The write runs on a thread of its own. Stopping it kills the tool it runs; the future is
done, cancelled or not, when nothing half-written is left. Past its point of no return, a
write is finished instead.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, wait
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from pyvirt.errors import ToolError, UnsupportedError
from pyvirt.guest.future import fail, settle
from pyvirt.qemu.need import Need, TemporaryFile
from pyvirt.qemu_img.answer import fraction, held, transient
from pyvirt.qemu_img.call import PACKAGE, PROGRAM, Call
from pyvirt.running.children.process import Process, spawn
from pyvirt.running.tools.claim import held_error

T = TypeVar("T")

#: How often a command is tried whose failure says nothing about its images.
TRIES = 30

#: Told what is being done, and how much of it is done from 0 to 1 where that is known.
Progress = Callable[[str, float | None], object]


class Writing(Future[T]):
    """The result of a write. `cancel` asks it to stop, and does not wait until it has."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def cancel(self) -> bool:
        """Stop it, unless it is done. Its end follows soon: `CancelledError`, or its result."""
        if self.done():
            return self.cancelled()
        self._work.stop()
        return True

    def abandon(self) -> None:
        """Cancel it, and wait until nothing is left of it."""
        self.cancel()
        wait([self])

    def finish_cancelled(self) -> None:
        """Nothing is left of it."""
        super().cancel()
        self.set_running_or_notify_cancel()  # or nobody who waits would hear of it


class Work:
    """What a write does, step by step; `stop` from any thread ends the step it is at."""

    def __init__(self, what: str, progress: Progress | None) -> None:
        self.what = what
        self._progress = progress
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._stopped = False
        self._unstoppable = False

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None and not self._unstoppable:
                self._process.kill()

    def step(self) -> None:
        """Between two steps: raises `CancelledError` when it is to stop."""
        if self._stopped and not self._unstoppable:
            raise CancelledError

    @contextmanager
    def unstoppable(self) -> Iterator[None]:
        """From here on there is no way back, only to the end."""
        with self._lock:
            self.step()
            self._unstoppable = True
        try:
            yield
        finally:
            self._unstoppable = False

    def tell(self, done: float | None) -> None:
        if self._progress is not None:
            self._progress(self.what, done)

    def run(self, call: Call, *, cwd: str = "", share: tuple[float, float] = (0.0, 1.0)) -> bytes:
        """What ``qemu-img`` printed. `share` is the part of the whole that this run is.

        Raises `HeldError`, or `ToolError` with its last words.
        """
        for _ in range(TRIES - 1):
            try:
                return self._once(call, cwd, share)
            except ToolError as error:
                if not transient(error.words):
                    raise
        return self._once(call, cwd, share)

    def _once(self, call: Call, cwd: str, share: tuple[float, float]) -> bytes:
        with ExitStack() as stack:
            supplied, fds = stack.enter_context(_supplied(call.needs))
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            try:
                process = self._spawn(call.argv(supplied), fds, writer, cwd)
            finally:
                os.close(writer)
            stack.callback(self._forget)
            stack.enter_context(process)
            printed = self._listen(reader, share)
            end = process.wait()
        self.step()
        if not end.ok:
            raise _fault(call, str(end), process.last_words)
        return printed

    def _spawn(self, argv: list[str], fds: tuple[int, ...], stdout: int, cwd: str) -> Process:
        if shutil.which(argv[0]) is None:
            raise UnsupportedError(PROGRAM, "this host", f"install the package {PACKAGE}")
        environment = {**os.environ, "LC_ALL": "C"}
        with self._lock:
            self.step()
            self._process = spawn(argv, pass_fds=fds, stdout=stdout, cwd=cwd, env=environment)
            return self._process

    def _forget(self) -> None:
        with self._lock:
            self._process = None

    def _listen(self, reader: int, share: tuple[float, float]) -> bytes:
        printed = bytearray()
        while piece := os.read(reader, 1 << 16):
            printed += piece
            done = fraction(printed[-400:])
            if done is not None:
                first, last = share
                self.tell(first + (last - first) * done)
        return bytes(printed)


def write(work: Work, act: Callable[[Work], T]) -> Writing[T]:
    """Begin `act`, which does `work`, on a thread of its own."""
    writing: Writing[T] = Writing(work)

    def run() -> None:
        try:
            result = act(work)
        except CancelledError:
            writing.finish_cancelled()
        except BaseException as error:
            fail(writing, error)
        else:
            settle(writing, result)

    threading.Thread(target=run, name="pyvirt-write", daemon=True).start()
    return writing


def _fault(call: Call, end: str, words: str) -> Exception:
    holds = held(words)
    if holds is not None:
        return held_error(call.names.get(holds, holds) or " or ".join(call.names.values()))
    return ToolError(PROGRAM, call.verb, end, call.plain(words))


@contextmanager
def _supplied(needs: tuple[Need, ...]) -> Iterator[tuple[Mapping[str, str], tuple[int, ...]]]:
    """What the needs supply, and the descriptors to hand on: secrets lie in no file."""
    supplied: dict[str, str] = {}
    with ExitStack() as stack:
        fds = []
        for need in needs:
            assert isinstance(need, TemporaryFile)
            fds.append(_in_memory(need.content))
            stack.callback(os.close, fds[-1])
            supplied[need.name] = f"/proc/self/fd/{fds[-1]}"
        yield supplied, tuple(fds)


def _in_memory(content: bytes) -> int:
    fd = os.memfd_create("pyvirt", os.MFD_CLOEXEC)
    os.write(fd, content)
    return fd
