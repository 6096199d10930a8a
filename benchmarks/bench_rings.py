"""Virtqueues read from outside: against a plain C loop, struct, QMP, and a guest without a trace.

Rings are built here, and what all sides read in them is asserted to be equal. One real guest
runs fio in windows that are traced and not, in turn.
"""

from __future__ import annotations

import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

from benchmarks.pairs import Row, Timed, above, alternate, below, told
from benchmarks.processor import output, worked
from pyvirt import VM, Disk, RunningVM
from pyvirt.guest import Guest
from pyvirt.virtio.builder import RingBuilder
from pyvirt.virtio.layout import RingLayout
from pyvirt.virtio.ring import Ring, Sampler

PEER = Path(__file__).with_name("peers") / "rings.c"
RINGS, REPEATED = 14, 256
SAMPLES, WALKS = 300, 300
CHAINS, SIZE = 1000, 4096
WINDOW, PAIRS = 0.25, 12  # seconds; pairs of windows in each round


class Bench:
    """A ring in a file, mapped by both sides."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder, self.rounds = folder, rounds
        self.peer = folder / "rings"
        subprocess.run(["cc", "-O3", "-o", self.peer, PEER], check=True)

    def ring(self, indirect: bool) -> tuple[Path, Ring]:
        """A ring with many chains of three descriptors in flight."""
        builder = RingBuilder("split", SIZE, room=1 << 22)
        for number in range(CHAINS):
            builder.publish([b"header" * 2], [512, 1 + number % 7], indirect=indirect)
        path = self.folder / f"ring-{indirect}"
        path.write_bytes(builder.memory)
        with open(path, "rb") as file:
            return path, Ring(mmap(file.fileno(), 0, access=ACCESS_READ), builder.layout)

    def c(self, path: Path, what: str, rounds: int, layouts: list[RingLayout]) -> Timed:
        words = [f"{one.desc},{one.driver},{one.device},{one.size}" for one in layouts]
        nanoseconds, result = output(self.peer, path, what, str(rounds), *words).split()
        return Timed(int(nanoseconds) / 1e9, int(result))


def _sampling(bench: Bench) -> Iterator[Row]:
    path, ring = bench.ring(False)
    many = [ring] * RINGS * REPEATED
    sampler, buffer = Sampler(many), bytearray(8 * len(many))

    def ours() -> int:
        for _ in range(SAMPLES):
            sampler.sample(buffer)
        return sum(memoryview(buffer).cast("H")[2::4])

    def plain() -> int:
        memory, layout = ring.memory.read(0, ring.layout.end), ring.layout
        index, found = struct.Struct("<H"), 0
        for _ in range(len(many)):
            used = index.unpack_from(memory, layout.device + 2)[0]
            avail = index.unpack_from(memory, layout.driver + 2)[0]
            found += (avail - used) & 0xFFFF
        return found

    layouts = [one.layout for one in many]
    pairs = alternate(
        {
            "pyvirt": lambda: worked(ours),
            "C": lambda: bench.c(path, "sample", SAMPLES, layouts),
            "struct": lambda: worked(plain),
        },
        bench.rounds,
    )
    count = len(many) * SAMPLES
    rate = count / pairs.median("pyvirt")
    yield told("samples a second", f"{rate / 1e6:.0f} M")
    yield below("sampling to C", pairs.ratio("pyvirt", "C"), 1.3)
    yield above("struct to sampling", pairs.ratio("struct", "pyvirt") * SAMPLES, 50)
    yield below("one snapshot()", min(_snapshot(ring) for _ in range(5)), 2, "us")
    yield above("QMP to sampling", rate * _qmp(), 10_000)


def _snapshot(ring: Ring, times: int = 20_000) -> float:
    begun = time.process_time()
    for _ in range(times):
        ring.snapshot()
    return (time.process_time() - begun) / times * 1e6


def _qmp(times: int = 300) -> float:
    """Seconds that QEMU takes to tell one queue's state."""
    with VM(memory="256M").start() as running:
        running.wait_for(agent=True)
        asked = {"path": "/machine/peripheral/vserial0/virtio-backend", "queue": 2}
        begun = time.perf_counter()
        for _ in range(times):
            running.qmp.execute("x-query-virtio-queue-status", asked)
        return (time.perf_counter() - begun) / times


def _walking(bench: Bench, indirect: bool) -> Iterator[Row]:
    path, ring = bench.ring(indirect)
    chains, descriptors = bytearray(32 * CHAINS), bytearray(16 * 3 * CHAINS)
    name = "indirect" if indirect else "direct"

    def ours() -> int:
        for _ in range(WALKS):
            ring.walk(chains, descriptors, 0, CHAINS)
        lengths = memoryview(chains).cast("Q")
        return sum(lengths[0::4]) + sum(lengths[1::4]) + 3 * CHAINS

    def plain() -> int:
        memory, layout = bytes(ring.memory.read(0, ring.memory.size)), ring.layout
        one, found = struct.Struct("<QIHH"), 0
        for slot in range(CHAINS):
            at = struct.unpack_from("<H", memory, layout.driver + 4 + 2 * slot)[0]
            table = layout.desc
            while True:
                address, length, flags, following = one.unpack_from(memory, table + 16 * at)
                if flags & 4:
                    table, at = address, 0
                    continue
                found += length + 1
                if not flags & 1:
                    break
                at = following
        return found

    pairs = alternate(
        {
            "pyvirt": lambda: worked(ours),
            "C": lambda: bench.c(path, "walk", WALKS, [ring.layout]),
            "struct": lambda: worked(plain),
        },
        bench.rounds,
    )
    rate = 3 * CHAINS * WALKS / pairs.median("pyvirt")
    yield told(f"{name}: descriptors a second", f"{rate / 1e6:.0f} M")
    yield below(f"{name}: walking to C", pairs.ratio("pyvirt", "C"), 1.3)
    yield above(f"{name}: struct to walking", pairs.ratio("struct", "pyvirt") * WALKS, 50)


def _job(depth: int, seconds: float) -> str:
    return (
        "fio --name=job --filename=/dev/vda --rw=randread --bs=4k --ioengine=libaio --direct=1 "
        f"--iodepth={depth} --runtime={seconds} --time_based"
    )


def _window(running: RunningVM) -> float:
    """Requests a second that QEMU has served, as it counts them itself."""
    before, begun = running.block_statistics()["disk0"]["rd_operations"], time.perf_counter()
    time.sleep(WINDOW)
    after = running.block_statistics()["disk0"]["rd_operations"]
    return float(after - before) / (time.perf_counter() - begun)


def _traced(bench: Bench) -> Iterator[Row]:
    disk = bench.folder / "disk.img"
    with open(disk, "wb") as file:
        file.truncate(64 << 20)
    vm = VM(memory="512M", boot=Guest(packages=["fio"]), disks=[Disk(disk, format="raw")])
    with vm.start() as running:
        running.wait_for(agent=True)
        for depth in (1, 32):
            with running.spawn(["sh", "-c", f"exec {_job(depth, 600)}"]) as job:
                time.sleep(1)
                yield from _windows(running, depth, PAIRS * bench.rounds)
                job.kill()
                job.wait()


def _windows(running: RunningVM, depth: int, pairs: int) -> Iterator[Row]:
    """Windows without a trace and with one, in turn, while the same job goes on."""
    losses, rates, efforts, missed, seen = [], [], [], 0, 0
    for number in range(pairs):
        done: dict[bool, float] = {}
        for traced in (False, True) if number % 2 else (True, False):
            if not traced:
                done[False] = _window(running)
                continue
            with running.trace("disk0") as tracer:
                done[True] = _window(running)
            trace = tracer.stop()
            seen += len(trace)
            missed += trace.lost.requests + trace.lost.dropped
            efforts.append(tracer.effort.processor / trace.seconds)
        rates.append(done[False])
        losses.append(100 * (1 - done[True] / max(1.0, done[False])))
    name = f"fio, depth {depth}"
    yield told(f"{name}: requests a second", f"{statistics.median(rates):.0f}")
    yield told(f"{name}: processor of the tracer", f"{100 * statistics.median(efforts):.0f} %")
    low, _, high = statistics.quantiles(losses, n=4)
    yield told(f"{name}: quartiles of what is lost", f"{low:.0f} to {high:.0f} %")
    yield below(f"{name}: throughput lost to the trace", statistics.median(losses), 5, "%")
    yield below(f"{name}: missed of {seen}", missed, 0, "requests")


def rows(rounds: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), rounds)
        yield from _sampling(bench)
        yield from _walking(bench, False)
        yield from _walking(bench, True)
        yield from _traced(bench)
