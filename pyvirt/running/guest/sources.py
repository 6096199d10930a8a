"""Reads the files that something is made of, and remembers which they were."""

from __future__ import annotations

import os
import time
from pathlib import Path

Identity = tuple[int, int, int]
"""Size, and the nanoseconds of the last change of contents and of status."""

_TICK = 20_000_000  # nanoseconds: file systems date changes no finer than a tick of the kernel
NEVER: Identity = (-1, -1, -1)
"""The identity of no file: what is remembered with it is made anew."""


def identity(path: str | Path) -> Identity | None:
    """What tells whether the file at *path* was changed; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Sources:
    """Every file that was read, with its identity from before it was read."""

    def __init__(self) -> None:
        self.identities: dict[str, Identity] = {}

    def read(self, path: str | Path) -> bytes:
        """The contents of the file at *path*."""
        self.note(path)
        with open(path, "rb") as file:
            return file.read()

    def note(self, path: str | Path) -> None:
        """Remember the file at *path* as one that was used."""
        found = identity(path)
        # A file changed in this tick may change again without a new date.
        settled = found and found[2] < time.time_ns() - _TICK
        self.identities[str(path)] = found if found and settled else NEVER
