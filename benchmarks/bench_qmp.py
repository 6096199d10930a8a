"""QMP against a minimal C client, qemu.qmp and its legacy client.

    python -m benchmarks.bench_qmp [--rounds N]

All sides of a comparison take turns in one run, each on its own monitor of the same QEMU, or
of the same kind of server that answers at once. What they were told is asserted to be equal.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient
from qemu.qmp.legacy import QEMUMonitorProtocol

from benchmarks.pairs import Pairs, Row, Timed, above, alternate, below, table, told
from pyvirt import aio
from pyvirt.qmp.flow import Command
from pyvirt.qmp.schema import Schema
from pyvirt.running.wire.monitor import Monitor

PEERS = Path(__file__).with_name("peers")
STATUS = '{"execute":"query-status"}'
BATCH = 200
BRIEF = 40  # commands within one time slice: a busy machine interrupts few of such rounds
VMS = 16


class Bench:
    """What the comparisons share: compiled peers, an event loop, all to be ended at the end."""

    def __init__(self, stack: ExitStack, rounds: int) -> None:
        self.stack, self.rounds = stack, rounds
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.loop = asyncio.new_event_loop()
        stack.callback(self.loop.close)
        for name in ("qmp_client", "qmp_server"):
            source, target = PEERS / f"{name}.c", self.folder / name
            subprocess.run(["cc", "-O2", "-o", target, source], check=True)

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def qemu(self, monitors: int) -> list[socket.socket]:
        """The ends of the monitors of a new QEMU."""
        pairs = [socket.socketpair() for _ in range(monitors)]
        words = [
            word
            for number, (_, theirs) in enumerate(pairs)
            for word in ("-chardev", f"socket,id=m{number},fd={theirs.fileno()}",
                         "-mon", f"chardev=m{number},mode=control")
        ]  # fmt: skip
        self.start(["qemu-system-x86_64", "-M", "q35", "-nodefaults", "-display", "none", "-S",
                    *words], [theirs for _, theirs in pairs])  # fmt: skip
        return [ours for ours, _ in pairs]

    def server(self, schema: Path) -> socket.socket:
        """The end of a connection to a server that answers at once."""
        ours, theirs = socket.socketpair()
        self.start([str(self.folder / "qmp_server"), str(theirs.fileno()), str(schema)], [theirs])
        return ours

    def start(self, argv: list[str], theirs: list[socket.socket], **more: Any) -> Any:
        process = subprocess.Popen(argv, pass_fds=[end.fileno() for end in theirs], **more)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        for end in theirs:
            end.close()
        return process

    def monitor(self, sock: socket.socket) -> Monitor:
        return self.stack.enter_context(Monitor.open(sock, timeout=30))

    def c_client(self, sock: socket.socket, command: str = STATUS) -> Callable[[int], Timed]:
        """Runs `command` a number of times in the C client, which takes the time."""
        process = self.start(
            [str(self.folder / "qmp_client"), str(sock.fileno()), command], [sock],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

        def run(count: int) -> Timed:
            process.stdin.write(f"{count}\n")
            nanoseconds, _ = process.stdout.readline().split()
            return Timed(int(nanoseconds) / 1e9, None)

        return run

    def qemu_qmp(self, sock: socket.socket) -> QMPClient:
        client = QMPClient()
        sock.setblocking(False)
        self.wait(client.connect(sock))
        self.stack.callback(lambda: self.wait(client.disconnect()))
        return client

    def legacy(self, sock: socket.socket) -> QEMUMonitorProtocol:
        sock.setblocking(False)
        client = QEMUMonitorProtocol(sock)
        client.connect()
        self.stack.callback(client.close)
        return client


def bench_status(bench: Bench, ends: list[socket.socket], batch: int, rounds: int) -> Pairs:
    """``query-status``, one after another, by every client on its own monitor."""
    ours = bench.monitor(ends[0])
    awaited = aio.Monitor.of(bench.monitor(ends[1]))
    client = bench.c_client(ends[2])
    theirs, legacy = bench.qemu_qmp(ends[3]), bench.legacy(ends[4])

    def blocking() -> Any:
        return [ours.execute("query-status") for _ in range(batch)][-1]

    async def await_each() -> Any:
        return [await awaited.execute("query-status") for _ in range(batch)][-1]

    async def await_theirs() -> Any:
        return [await theirs.execute("query-status") for _ in range(batch)][-1]

    told_by_c = blocking()
    return alternate(
        {
            "C": lambda: Timed(client(batch).seconds, told_by_c),
            "blocking": blocking,
            "awaited": lambda: bench.wait(await_each()),
            "qemu.qmp": lambda: bench.wait(await_theirs()),
            "legacy": lambda: [legacy.cmd("query-status") for _ in range(batch)][-1],
        },
        rounds,
    )


def own_cost(bench: Bench, schema: Path, count: int = 2000) -> float:
    """Microseconds of processor time of a blocking command, however busy the machine is."""
    monitor = bench.monitor(bench.server(schema))

    def ask() -> Timed:
        begun = time.process_time()
        for _ in range(count):
            monitor.execute("query-status")
        return Timed(time.process_time() - begun, None)

    return alternate({"ours": ask}, bench.rounds).median("ours") / count * 1e6


def bench_schema(bench: Bench, schema: Path) -> Pairs:
    """``query-qmp-schema`` from a server that has it ready, decoded whole."""
    ours, theirs = bench.monitor(bench.server(schema)), bench.qemu_qmp(bench.server(schema))
    return alternate(
        {
            "ours": lambda: [ours.execute("query-qmp-schema") for _ in range(5)][-1],
            "qemu.qmp": lambda: [bench.wait(theirs.execute("query-qmp-schema"))
                                 for _ in range(5)][-1],
        },
        bench.rounds,
    )  # fmt: skip


def bench_many(bench: Bench) -> Pairs:
    """Sixteen VMs asked at once, again and again."""
    ends = [bench.qemu(3) for _ in range(VMS)]
    ours = [bench.monitor(one) for one, _, _ in ends]
    awaited = [aio.Monitor.of(bench.monitor(one)) for _, one, _ in ends]
    theirs = [bench.qemu_qmp(one) for _, _, one in ends]

    def blocking() -> Any:
        for _ in range(20):
            futures = [one.begin(Command("query-status")) for one in ours]
            found = [future.result() for future in futures]
        return found

    async def gather(clients: list[Any]) -> Any:
        for _ in range(20):
            found = await asyncio.gather(*(one.execute("query-status") for one in clients))
        return found

    return alternate(
        {
            "blocking": blocking,
            "awaited": lambda: bench.wait(gather(awaited)),
            "qemu.qmp": lambda: bench.wait(gather(theirs)),
        },
        bench.rounds,
    )


def bench_storm(bench: Bench, schema: Path) -> Iterator[Row]:
    """A hundred thousand events a second for three seconds, into a queue that nobody empties."""
    monitor, count, rate = bench.monitor(bench.server(schema)), 300_000, 100_000
    monitor.execute("x-storm-100000-0")
    before = resource.getrusage(resource.RUSAGE_SELF)
    with monitor.events("GUEST_PANICKED", size=1000) as queue:
        begun = time.perf_counter()
        monitor.execute(f"x-storm-{count}-{rate}")
        took = time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert (len(queue), queue.dropped) == (1000, count - 1000)
    busy = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / took
    grown = (after.ru_maxrss - before.ru_maxrss) * 1024
    yield above("storm of 100,000 events/s, heard", count / took / 1e3, 99.0, "k/s")
    yield below("  memory grown meanwhile", grown / 2**20, 4, "MiB")
    yield told("  of one processor", f"{busy:.0%}")
    yield told("  dropped and counted", f"{count - 1000:,}")
    begun = time.perf_counter()
    monitor.execute("x-storm-1000000-0")
    yield told("events nobody wants, passed over", f"{1 / (time.perf_counter() - begun):.2f} M/s")
    with monitor.events("GUEST_PANICKED", size=1000) as queue:
        begun = time.perf_counter()
        monitor.execute("x-storm-300000-0")
        yield told("events queued, at most", f"{0.3 / (time.perf_counter() - begun):.2f} M/s")
        assert queue.dropped == 299_000


def bench_events(bench: Bench, schema: Path) -> Pairs:
    """Twenty thousand events delivered to a listener that takes each."""
    ours, theirs = bench.monitor(bench.server(schema)), bench.qemu_qmp(bench.server(schema))
    count = 20_000

    def hear() -> int:
        with ours.events("GUEST_PANICKED", size=count) as queue:
            ours.execute(f"x-storm-{count}-0")
            return sum(queue.get().name == "GUEST_PANICKED" for _ in range(count))

    async def hear_theirs() -> int:
        with theirs.listener("GUEST_PANICKED") as listener:
            await theirs.execute(f"x-storm-{count}-0")
            return sum([(await listener.get())["event"] == "GUEST_PANICKED" for _ in range(count)])

    return alternate({"ours": hear, "qemu.qmp": lambda: bench.wait(hear_theirs())}, bench.rounds)


def bench_cache(bench: Bench, schema: Path) -> float:
    """Seconds from a file with the cached schema to a command that is known."""
    cached = bench.folder / "cached"
    cached.write_bytes(Schema.decode(schema.read_bytes()).to_bytes())

    def load() -> Any:
        return Schema.from_bytes(cached.read_bytes()).command("blockdev-add").name

    return alternate({"load": load}, bench.rounds).median("load")


def rows(rounds: int) -> Iterator[Row]:
    """Everything that was promised of QMP."""
    with ExitStack() as stack:
        bench = Bench(stack, rounds)
        schema = bench.folder / "schema.json"
        with Monitor.open(bench.qemu(1)[0], timeout=30) as monitor:
            schema.write_bytes(monitor.fetch("query-qmp-schema"))
        real = bench_status(bench, bench.qemu(5), BATCH, rounds)
        yield told("query-status on QEMU, C client", f"{real.median('C') / BATCH * 1e6:.0f} us")
        yield below("  blocking, to the C client", real.ratio("blocking", "C"), 1.1)
        yield below("  awaited, to the C client", real.ratio("awaited", "C"), 1.3)
        yield above("  qemu.qmp, to blocking", real.ratio("qemu.qmp", "blocking"), 2.0)
        yield above("  legacy client, to blocking", real.ratio("legacy", "blocking"), 2.4)
        servers = [bench.server(schema) for _ in range(5)]
        instant = bench_status(bench, servers, BRIEF, 10 * rounds)
        cost = {side: instant.median(side) / BRIEF * 1e6 for side in instant.seconds}
        yield told("server that answers at once, C client", f"{cost['C']:.1f} us")
        yield below("  blocking", cost["blocking"], 35, "us")
        yield told("  of that, our processor time", f"{own_cost(bench, schema):.1f} us")
        yield told("  awaited", f"{cost['awaited']:.1f} us")
        yield told("  qemu.qmp", f"{cost['qemu.qmp']:.1f} us")
        whole = bench_schema(bench, schema)
        yield told("query-qmp-schema decoded", f"{whole.median('ours') / 5 * 1e3:.2f} ms")
        yield above("  qemu.qmp, to ours", whole.ratio("qemu.qmp", "ours"), 8.0)
        many = bench_many(bench)
        rate = VMS * 20 / many.median("blocking")
        yield told(f"{VMS} VMs at once, blocking face", f"{rate:,.0f} commands/s")
        yield above("  rate, to qemu.qmp's", many.ratio("qemu.qmp", "blocking"), 2.5)
        yield told("  awaited, to qemu.qmp's", f"{many.ratio('qemu.qmp', 'awaited'):.2f} x")
        yield from bench_storm(bench, schema)
        heard = bench_events(bench, schema)
        yield told("20,000 events, qemu.qmp to ours", f"{heard.ratio('qemu.qmp', 'ours'):.1f} x")
        yield below("schema from its cache", bench_cache(bench, schema) * 1e3, 2.0, "ms")


@contextmanager
def quiet() -> Iterator[None]:
    """The legacy client warns of its own use of asyncio."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    with quiet():
        print(table("QMP", rows(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
