"""A serial port that QEMU captures: its text, and a keyboard for it.

QEMU writes all output to a log file itself, so the guest never waits for a reader. A
connection to the port is made when somebody writes, and is drained from then on.
"""

from __future__ import annotations

import codecs
import re
import socket
from concurrent.futures import Future
from pathlib import Path

from pyvirt.errors import own
from pyvirt.running.holes import punch_hole
from pyvirt.running.loop import loop

#: Seconds between two looks at the log while somebody waits for text.
GLANCE = 0.01

#: Characters after the last match in which a pattern is looked for; older ones are let go.
WINDOW = 1 << 20

_TAIL = 64 * 1024

# Colours and cursor movements (ECMA-48 control sequences), which only hinder a reader.
_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
# What may become a control sequence or a line's end with the next bytes.
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*)?|\r)\Z")


class Console:
    """One serial port of a running VM, for one reader and one writer at a time.

    `first` is the offset of the first byte that is still kept.
    """

    def __init__(self, name: str, log: Path, address: Path, limit: int | None = None) -> None:
        self.name, self.log, self.limit = name, log, limit
        self.first = 0
        self._address = address
        self._socket: socket.socket | None = None
        self._waiting: list[tuple[re.Pattern[str], Future[re.Match[str]]]] = []
        self._glancing = False
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
        if self._closed is not None:
            raise own(self._closed)
        self._connect().sendall(data.encode() if isinstance(data, str) else data)

    def expect(self, pattern: str | re.Pattern[str]) -> Future[re.Match[str]]:
        """Wait for `pattern` in what comes after the last match.

        Whoever waits may cancel the future. It fails with `ClosedError` when the VM ends.
        """
        future: Future[re.Match[str]] = Future()
        self._waiting.append((re.compile(pattern), future))
        loop().soon(self._look)
        return future

    def close(self, error: Exception) -> None:
        """The VM ended: a last look for those who wait, then `error` for them."""
        self._closed = error
        loop().soon(self._end)

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
        assert self._closed is not None
        self._look()
        for _pattern, future in self._waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(own(self._closed))
        self._waiting.clear()
        if self._socket is not None:
            loop().remove(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self._address))
            loop().add(connection.fileno(), lambda: self._drain(connection))
            self._socket = connection
        return self._socket

    def _drain(self, connection: socket.socket) -> None:
        """The log has it all: what comes here only must not pile up."""
        if not connection.recv(1 << 16, socket.MSG_DONTWAIT):
            loop().remove(connection.fileno())


def tidy(output: bytes) -> str:
    """Terminal output as plain text: no control sequences, ``\\n`` for a line's end."""
    return _plain(output.decode("utf-8", "replace"))


def _plain(text: str) -> str:
    return _CONTROL.sub("", text.replace("\r\n", "\n"))
