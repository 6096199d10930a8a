"""Where containers live: a directory each, and a lock each."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import field

from pyvirt.errors import BusyError, SpecError
from pyvirt.fields import frozen

#: Seconds between two tries to get a lock that somebody holds.
PAUSE = 0.02


def default_root() -> Path:
    """$PYVIRT_STORE; else /var/lib/pyvirt/containers for root, and for others a directory of
    their own state."""
    if named := os.environ.get("PYVIRT_STORE"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/pyvirt/containers")
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "pyvirt/containers"


@frozen
class Store:
    """A directory with a directory for each container; `liblxc` knows it as its lxcpath."""

    root: Path = field(factory=default_root, converter=Path)

    def place(self, name: str) -> Path:
        """The directory of container `name`, whether it is there or not."""
        if "/" in name or name in ("", ".", "..") or name.startswith("."):
            raise SpecError("name", "must be the name of a container", name)
        return self.root / name

    def names(self) -> list[str]:
        """The containers that are there."""
        try:
            entries = sorted(os.scandir(self.root), key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
        return [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]

    def make(self, name: str | None) -> Path:
        """A new directory for container `name`, or for one with a name that nobody has.

        The users of an unprivileged container must be able to pass through it.
        Raises `SpecError` when there is one of that name.
        """
        self._make_root()
        while True:
            place = self.place(name or f"c{secrets.token_hex(4)}")
            try:
                place.mkdir(mode=0o711)
            except FileExistsError:
                if name is not None:
                    raise SpecError("name", "is taken by a container", name) from None
                continue
            place.chmod(0o711)
            return place

    @contextmanager
    def lock(self, name: str, timeout: float = 0.0) -> Iterator[None]:
        """Nobody else, thread or process, works on container `name` meanwhile.

        Raises `BusyError` when somebody still does after `timeout` seconds.
        """
        fd = self._locked(name, timeout)
        try:
            yield
        finally:
            # Not only closed: what liblxc forks just now has a copy for a moment.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _locked(self, name: str, timeout: float) -> int:
        self._make_root()
        path = self._lock_of(name)
        deadline = time.monotonic() + timeout
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if _try_lock(fd, path):
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
            holder = os.pread(fd, 32, 0).partition(b"\n")[0].decode("ascii", "replace")
            os.close(fd)
            if time.monotonic() >= deadline:
                raise BusyError(f"container {name}", holder, timeout)
            time.sleep(PAUSE)

    def _lock_of(self, name: str) -> Path:
        return self.root / ".locks" / self.place(name).name

    def forget(self, name: str) -> None:
        """The container `name` is gone, and with it its lock, which the caller holds."""
        self._lock_of(name).unlink(missing_ok=True)

    def _make_root(self) -> None:
        self.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        (self.root / ".locks").mkdir(mode=0o700, exist_ok=True)


def _try_lock(fd: int, path: Path) -> bool:
    """Whether `fd` is locked now, and is still the file that others would lock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
