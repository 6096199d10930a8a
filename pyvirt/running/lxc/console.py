"""The console of a container: liblxc writes down what is said there; we type on it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from pyvirt.errors import ClosedError, own
from pyvirt.running.console import FULL, Console
from pyvirt.running.lxc.handle import Handle
from pyvirt.running.waiting.loop import loop

#: Bytes of what was said that are kept.
KEPT = 16 << 20


class ContainerConsole(Console):
    """The console of a running container, for one reader and one writer at a time."""

    def __init__(self, name: str, log: Path, handle: Handle) -> None:
        super().__init__(name, log, log, KEPT)
        self._handle = handle
        self._terminal: tuple[int, int] | None = None
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"<ContainerConsole: {self.name}, {self.size} bytes said>"

    def _type(self, data: memoryview) -> int:
        """How much of `data` the terminal took."""
        if self._closed is not None:
            raise own(self._closed)
        try:
            return os.write(self._open(), data)
        except BlockingIOError:
            time.sleep(FULL)
            return 0
        except OSError:
            raise ClosedError(self.name, "nobody has it open any longer") from None

    def _open(self) -> int:
        with self._opening:
            if self._terminal is None:
                self._terminal = self._handle.console()
                os.set_blocking(self._terminal[0], False)
                loop().add(self._terminal[0], self._drain)
            return self._terminal[0]

    def _drain(self) -> None:
        """What is said there is in the log already, but nobody may have to wait for a reader."""
        terminal = self._terminal
        try:
            over = terminal is None or not os.read(terminal[0], 65536)
        except BlockingIOError:
            return
        except OSError:
            over = True
        if over and terminal is not None:
            loop().remove(terminal[0])

    def close(self, error: Exception) -> None:
        """The container ended, or is let go: `error` for those who wait for text."""
        super().close(error)
        with self._opening:
            if self._terminal is not None:
                loop().remove(self._terminal[0])
                for fd in self._terminal:
                    os.close(fd)
                self._terminal = None
