"""What every way into a guest offers: one interface, whoever answers inside.

Everything that takes time returns a `concurrent.futures.Future`, so that the blocking face
waits with ``.result()`` and the asyncio face with ``asyncio.wrap_future``. When the
connection ends, every future that is still open fails at once with `ClosedError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, BinaryIO, Protocol, TypeAlias

from attrs import field, frozen

from pyvirt.guest.process import GuestProcess
from pyvirt.guest.result import Result

LIMIT = 64 << 20  # bytes of output that `run` keeps of each stream when nothing else is asked

Command: TypeAlias = str | Sequence[str]
Progress: TypeAlias = Callable[[int, int | None], None]
Sink: TypeAlias = Callable[[bytes], object]


@frozen
class Interface:
    """A network interface of the guest; addresses are written as ``10.0.2.15/24``."""

    name: str
    mac: str
    addresses: tuple[str, ...]


@frozen
class Filesystem:
    """A mounted file system of the guest, sizes in bytes (None where the guest hides them)."""

    mountpoint: str
    type: str
    device: str
    total: int | None
    used: int | None


@frozen
class User:
    """Somebody who is logged in, since `time` (seconds since 1970)."""

    name: str
    time: float


@frozen
class GuestInfo:
    """What the guest says of itself: hostile input, shown and never trusted.

    `time` is the guest's clock in seconds since 1970, `uptime` in seconds; `os` is its
    /etc/os-release (``ID``, ``VERSION_ID``, ``PRETTY_NAME``, ...).
    """

    hostname: str
    kernel: str
    machine: str
    os: Mapping[str, str] = field(factory=dict)
    interfaces: tuple[Interface, ...] = ()
    filesystems: tuple[Filesystem, ...] = ()
    users: tuple[User, ...] = ()
    uptime: float | None = None
    time: float | None = None


class Carrier(Protocol):
    """Acts inside one guest."""

    @property
    def ready(self) -> Future[None]:
        """Done when something answers inside the guest. What is asked before waits for it."""

    def ping(self) -> Future[float]:
        """How long the guest took to answer, in seconds."""

    def info(self) -> Future[GuestInfo]:
        """What the guest says of itself."""

    def run(
        self,
        command: Command,
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        limit: int = LIMIT,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        encoding: str | None = "utf-8",
    ) -> Future[Result[Any]]:
        """Run `command` to its end; a `str` is run by /bin/sh.

        At most `limit` bytes of each stream are kept; the command then goes on, and the
        result is marked as cut. A stream with a sink is kept nowhere, is given whole to the
        sink, on a thread of its own, and never passes a limit. At `timeout` the command and
        its whole session are killed, and `RunTimedOut` holds what there was.
        """

    def spawn(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        pty: bool = False,
    ) -> Future[GuestProcess]:
        """Start `command` with live streams."""

    def put(
        self,
        source: BinaryIO | bytes,
        path: str,
        *,
        mode: int = 0o644,
        progress: Progress | None = None,
    ) -> Future[int]:
        """Write a file of the guest: whole under its name, or not at all. The bytes written."""

    def get(self, path: str, sink: BinaryIO, *, progress: Progress | None = None) -> Future[int]:
        """Read a file of the guest into `sink`. The bytes read."""

    def put_tree(self, source: str, path: str, *, progress: Progress | None = None) -> Future[int]:
        """Copy a directory of the host to directory `path` of the guest. The bytes sent."""

    def get_tree(self, path: str, target: str, *, progress: Progress | None = None) -> Future[int]:
        """Copy directory `path` of the guest into a directory of the host. The bytes read."""

    def listening(self, port: int, protocol: str = "tcp") -> Future[bool]:
        """Whether something in the guest listens on `port`."""

    def fsfreeze(self) -> Future[int]:
        """Freeze the guest's file systems, for a consistent snapshot. How many."""

    def fsthaw(self) -> Future[int]:
        """Let the guest write again. How many file systems were frozen."""

    def set_time(self, seconds: float | None = None) -> Future[None]:
        """Set the guest's clock to `seconds` since 1970, or to the host's."""

    def shutdown(self, mode: str = "powerdown") -> Future[None]:
        """Ask the guest to end: ``powerdown``, ``halt`` or ``reboot``. Done when it agreed."""

    def interrupt(self, error: Exception) -> None:
        """What ran in the guest is gone, and an agent may come again: all that is open fails
        with `error`, and `ready` begins anew.
        """

    def close(self, error: Exception | None = None) -> None:
        """Let go of the connection; open futures fail with `error`, or `ClosedError`."""
