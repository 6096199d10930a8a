"""A network namespace of a test's own, which ends with it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000


class Namespace:
    """Runs functions in a namespace of their own; the rest of the process stays where it is."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread

    def __call__(self, function: Callable[..., T], *arguments: object, **named: object) -> T:
        return self._thread.submit(function, *arguments, **named).result(60)

    def sh(self, command: str) -> str:
        """What a shell command prints there."""
        done = self(
            subprocess.run, ["sh", "-ec", command], capture_output=True, text=True, check=True
        )
        return str(done.stdout)


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A new network namespace. Raises `PermissionError` without the right to make one."""
    # A namespace belongs to a thread, and so do the processes that the thread starts.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_unshare).result()
        yield Namespace(thread)


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")
