"""The other ends of the network: what a guest's card is joined to, and who answers there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from attrs import frozen

from pyvirt.bench import inside, programs
from pyvirt.bench.guest import BenchGuest
from pyvirt.bench.namespace import Namespace
from pyvirt.bench.net import NetPoint
from pyvirt.bench.place import Place
from pyvirt.errors import StartError, TimedOut
from pyvirt.nic import Backend, Nic, Passt, Stream, Tap, Unix, User
from pyvirt.running.children.keeper import temporary_directory
from pyvirt.running.children.process import Process, spawn
from pyvirt.running.guest.apt import Progress

#: Seconds that a server gets until it listens.
PATIENCE = 20.0

#: The ports of iperf3 and of the round trips where no one else uses any.
IPERF, TRIPS = 5201, 5202


@frozen
class Joined:
    """An open back end: the guest's `address` on it, and where it finds its `server`."""

    backend: Backend
    address: str
    server: str
    prefix: int = 24


class End(Protocol):
    """Who answers to a guest. `port` is that of iperf3, `trips` that of the round trips."""

    port: int
    trips: int

    def join(self, point: NetPoint) -> Iterator[Joined]:
        """Open a back end for one visit."""

    def serve(self, argv: Sequence[str]) -> Process | None:
        """Start a server of the round trips."""

    def close(self) -> None:
        """Give everything back."""


class HostEnd:
    """This host, as a guest sees it through user-mode networking or passt."""

    def __init__(self) -> None:
        self.port, self.trips = _free_port(), _free_port()
        words = ["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(self.port)]
        self._server = self.serve(words, self.port)

    def join(self, point: NetPoint) -> Iterator[Joined]:
        user = User()
        address, gateway = str(user.guest), str(user.gateway)
        passt = Passt(address=(address,), gateway=(gateway,))
        yield Joined(user if point.backend == "user" else passt, address, gateway)

    def serve(self, argv: Sequence[str], port: int = 0) -> Process:
        return _serve(argv, port or self.trips)

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._server.pid,)

    def close(self) -> None:
        self._server.close()


class TapEnd:
    """A network namespace with a tap for each visit."""

    port, trips = IPERF, TRIPS

    def __init__(self) -> None:
        with ExitStack() as undo:
            self._namespace = undo.enter_context(Namespace())
            self._server = self.serve(["iperf3", "--server"], IPERF)
            undo.pop_all()

    def join(self, point: NetPoint) -> Iterator[Joined]:
        _name, fds = self._namespace.tap(point.queues)
        try:
            tap = Tap(fds=tuple(fds), vhost=point.vhost)
            yield Joined(tap, inside.GUEST, inside.HOST, inside.PREFIX)
        finally:
            for fd in fds:
                os.close(fd)

    def serve(self, argv: Sequence[str], port: int = TRIPS) -> Process:
        return _serve(argv, port, self._namespace.words([]))

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._server.pid,)

    def close(self) -> None:
        self._server.close()
        self._namespace.close()


class PeerEnd:
    """A second guest with a virtio-net card, at the other end of a socket."""

    port, trips = IPERF, TRIPS

    def __init__(self, place: Place, progress: Progress) -> None:
        self._guest = BenchGuest(place, {}, progress, name="peer")
        self._guest.running.run("iperf3 --server --daemon", check=True)

    def join(self, point: NetPoint) -> Iterator[Joined]:
        # A path and no socket pair, with which QEMU's netdev would be `socket`.
        with temporary_directory("pyvirt-bench-") as place:
            address = Unix(f"{place}/net")
            with self._guest.plugged(Nic(Stream(address, server=True))) as card:
                self._guest.connect(card.name, inside.PEER, inside.PREFIX)
                yield Joined(Stream(address), inside.GUEST, inside.PEER, inside.PREFIX)

    def serve(self, argv: Sequence[str]) -> None:
        self._guest.running.spawn(list(argv))
        time.sleep(0.5)  # fio says nowhere that it listens; the client tries again.

    @property
    def pids(self) -> tuple[int, ...]:
        return self._guest.pids

    def close(self) -> None:
        self._guest.close()


@contextmanager
def joined(end: HostEnd | TapEnd | PeerEnd, point: NetPoint) -> Iterator[Joined]:
    """The open back end, for the block."""
    yield from end.join(point)


def _serve(argv: Sequence[str], port: int, prefix: Sequence[str] = ()) -> Process:
    """Start a server with the host's program, and wait until it listens on `port`."""
    path, environment = programs.find(argv[0])
    process = spawn([*prefix, path, *argv[1:]], env=environment)
    limit = time.monotonic() + PATIENCE
    while not _listens(process.pid, port):
        if process.exit is not None:
            raise StartError(argv[0], str(process.exit), process.last_words)
        if time.monotonic() > limit:
            process.close()
            raise TimedOut(f"the start of {argv[0]} on port {port}", PATIENCE)
        time.sleep(0.005)
    return process


def _listens(pid: int, port: int) -> bool:
    """Whether somebody in the network of process `pid` listens on `port` (proc_net(5))."""
    for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        try:
            rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            return False
        for row in rows:
            words = row.split()
            if words[1].endswith(f":{port:04X}") and words[3] == state:
                return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
