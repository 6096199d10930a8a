"""A serial port that QEMU captures: its text, and a keyboard for it.

QEMU writes all output to a log file itself, so the guest never waits for a reader. What is
typed goes through a FIFO.
"""

from __future__ import annotations

import codecs
import os
import re
import threading
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from pyvirt.errors import ClosedError, own
from pyvirt.running.host.holes import punch_hole
from pyvirt.running.waiting.loop import loop

#: Seconds between two looks at the log while somebody waits for text.
GLANCE = 0.01

#: Seconds between two tries to type while the guest does not read.
FULL = 0.05

#: Characters after the last match in which a pattern is looked for; older ones are let go.
WINDOW = 1 << 20

_TAIL = 64 * 1024

# Colours and cursor movements (ECMA-48 control sequences), which only hinder a reader.
# OSC sequences (titles) end with BEL or ST.
_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|[@-Z\\^_])"
)
# What may become a control sequence or a line's end with the next bytes.
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*)?|\r)\Z")


class Console:
    """One serial port of a running VM, for one reader and one writer at a time.

    `first` is the offset of the first byte that is still kept.
    """

    def __init__(self, name: str, log: Path, keyboard: Path, limit: int | None = None) -> None:
        self.name, self.log, self.limit = name, log, limit
        self.first = 0
        self._keyboard = keyboard
        self._typing = threading.Lock()
        self._waiting: list[tuple[re.Pattern[str], Future[re.Match[str]]]] = []
        self._glancing = self._ended = False
        self._closed: Exception | None = None
        self._heard = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._fresh = ""

    @property
    def size(self) -> int:
        """Bytes that the guest wrote so far."""
        try:
            return self.log.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, start: int = 0, limit: int | None = None) -> bytes:
        """What the guest wrote from byte `start` on, at most `limit` bytes.

        Bytes before `first` are no longer kept.
        """
        try:
            with self.log.open("rb") as file:
                file.seek(max(start, self.first))
                return file.read(-1 if limit is None else limit)
        except FileNotFoundError:
            return b""

    @property
    def text(self) -> str:
        """All that the guest wrote, as text; broken UTF-8 is shown as U+FFFD."""
        return tidy(self.read())

    @property
    def tail(self) -> str:
        """The last lines that the guest wrote, at most 64 KiB."""
        return tidy(self.read(max(0, self.size - _TAIL)))

    def trim(self) -> None:
        """Let go of the oldest text when there is more than `limit` bytes.

        The file keeps its size and gets a hole, so that QEMU goes on writing where it was.
        """
        size = self.size
        if self.limit is None or size - self.first <= self.limit:
            return
        first = size - self.limit // 2
        with self.log.open("rb+") as file:
            punch_hole(file.fileno(), self.first, first - self.first)
        self.first = first

    def write(self, data: str | bytes) -> None:
        """Type `data` at the port. A newline is sent as it is: shells want ``\\n`` or ``\\r``."""
        rest = memoryview(data.encode() if isinstance(data, str) else data)
        with self._typing:
            while rest:
                rest = rest[self._type(rest) :]

    def expect(self, pattern: str | re.Pattern[str]) -> Future[re.Match[str]]:
        """Wait for `pattern` in what comes after the last match.

        Whoever waits may cancel the future. It fails with `ClosedError` when the VM ends.
        """
        future: Future[re.Match[str]] = Future()
        loop().soon(partial(self._wait, re.compile(pattern), future))
        return future

    def close(self, error: Exception) -> None:
        """The VM ended: a last look for those who wait, then `error` for them."""
        self._closed = error
        loop().soon(self._end)

    def _type(self, data: memoryview) -> int:
        """How much of `data` the FIFO took; it holds 64 KiB until the guest reads."""
        if self._closed is not None:
            raise own(self._closed)
        try:
            fifo = os.open(self._keyboard, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # ENXIO, ENOENT: QEMU has just gone
            raise ClosedError(self.name, "QEMU reads it no longer") from None
        try:
            return os.write(fifo, data)
        except BlockingIOError:
            time.sleep(FULL)
            return 0
        except BrokenPipeError:
            raise ClosedError(self.name, "QEMU reads it no longer") from None
        finally:
            os.close(fifo)

    # On the loop's thread only

    def _wait(self, pattern: re.Pattern[str], future: Future[re.Match[str]]) -> None:
        self._waiting.append((pattern, future))
        self._look()
        if self._ended:
            self._fail()

    def _look(self) -> None:
        self._waiting = [wait for wait in self._waiting if not self._serve(*wait)]
        if self._waiting and not self._glancing:
            self._glancing = True
            loop().later(GLANCE, self._glance)

    def _glance(self) -> None:
        self._glancing = False
        self._look()

    def _serve(self, pattern: re.Pattern[str], future: Future[re.Match[str]]) -> bool:
        """Whether nobody waits for `pattern` any longer."""
        if future.cancelled():
            return True
        self._hear()
        match = pattern.search(self._fresh)
        if match is None:
            return False
        if future.set_running_or_notify_cancel():
            self._fresh = self._fresh[match.end() :]
            future.set_result(match)
        return True

    def _hear(self) -> None:
        """Add what the guest wrote since the last time to what patterns are looked for in."""
        self._heard = max(self._heard, self.first)
        data = self.read(self._heard, WINDOW)
        self._heard += len(data)
        text = self._rest + self._decoder.decode(data)
        cut = _UNFINISHED.search(text)
        end = cut.start() if cut else len(text)
        self._fresh = (self._fresh + _plain(text[:end]))[-WINDOW:]
        self._rest = text[end:]

    def _end(self) -> None:
        self._ended = True
        self._look()
        self._fail()

    def _fail(self) -> None:
        assert self._closed is not None
        for _pattern, future in self._waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(own(self._closed))
        self._waiting.clear()


def tidy(output: bytes) -> str:
    """Terminal output as plain text: no control sequences, ``\\n`` for a line's end."""
    return _plain(output.decode("utf-8", "replace"))


def _plain(text: str) -> str:
    return _CONTROL.sub("", text.replace("\r\n", "\n"))
