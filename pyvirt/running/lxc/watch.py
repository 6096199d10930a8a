"""Processes that are not our children, watched by descriptor."""

from __future__ import annotations

import os
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from pyvirt.running.waiting.loop import loop


class Watched:
    """The first process of a container, and liblxc's monitor, whose child it is."""

    def __init__(self, pid: int, monitor: int) -> None:
        self.pid = pid
        self.monitor = gone(monitor)

    @classmethod
    def first(cls, pid: int) -> Watched | None:
        """Watch process `pid`; None when it has just ended."""
        with suppress(ProcessLookupError, FileNotFoundError):
            status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
            parent = next(line for line in status.splitlines() if line.startswith("PPid:"))
            return cls(pid, int(parent.split()[1]))
        return None


def gone(pid: int) -> Future[None]:
    """Done when process `pid`, anybody's, has ended."""
    future: Future[None] = Future()
    pidfd = os.pidfd_open(pid)

    def ended() -> None:
        loop().remove(pidfd)
        os.close(pidfd)
        future.set_result(None)

    loop().add(pidfd, ended)
    return future
