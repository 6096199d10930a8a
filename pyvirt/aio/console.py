"""A captured serial port, awaited."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from pyvirt.aio.monitor import result
from pyvirt.running import console
from pyvirt.running.waiting.waits import aside


class Console:
    """`pyvirt.running.console.Console`, awaited where that may wait for the guest."""

    def __init__(self, port: console.Console) -> None:
        self._console = port

    @property
    def name(self) -> str:
        return self._console.name

    @property
    def log(self) -> Path:
        return self._console.log

    @property
    def size(self) -> int:
        """Bytes that the guest wrote so far."""
        return self._console.size

    def read(self, start: int = 0, limit: int | None = None) -> bytes:
        """What the guest wrote from byte `start` on, at most `limit` bytes."""
        return self._console.read(start, limit)

    @property
    def text(self) -> str:
        """All that the guest wrote, as text; broken UTF-8 is shown as U+FFFD."""
        return self._console.text

    @property
    def tail(self) -> str:
        """The last lines that the guest wrote, at most 64 KiB."""
        return self._console.tail

    async def write(self, data: str | bytes) -> None:
        """Type `data` at the port. A newline is sent as it is: shells want ``\\n`` or ``\\r``."""
        await result(aside(partial(self._console.write, data)), None, "typing")

    async def expect(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """Wait for `pattern` in what comes after the last match.

        It fails with `ClosedError` when the VM ends.
        """
        return await result(self._console.expect(pattern), None, "text on the console")
