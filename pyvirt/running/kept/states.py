"""States of root file systems: trees with names of their own, so that many may share one.

A state belongs to no container. Records name the states that they need, and one that no
record names is removed. So every change of what a container is, is one replaced record.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyvirt.running.rootfs.making import made, remove
from pyvirt.running.rootfs.watch import Watch


class States:
    """The states below the directory `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, name: str) -> Path:
        """The directory of a state."""
        return self.folder / name

    def root(self, name: str) -> Path:
        """The tree in a state."""
        return self.folder / name / "rootfs"

    @contextmanager
    def new(self, watch: Watch) -> Iterator[str]:
        """The name of a new state; it is removed unless the body ends well, having named it."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        name = secrets.token_hex(8)
        with made(self.place(name), watch) as place:
            place.chmod(0o711)
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield name
            finally:
                os.close(lock)

    def collect(self, needed: set[str]) -> None:
        """Remove the states that nobody needs, and nobody is making."""
        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            if place.name not in needed and _idle(place):
                remove(place)


def _idle(place: Path) -> bool:
    """Whether no process is making it."""
    try:
        lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
