"""Maps, checks and measures of disk images against qemu-img and a plain C program.

    python -m benchmarks image_map [--rounds N] [--long]

The images are made here: 1 TiB with 1 and 4 million clusters of 64 KiB in random order, their
data a hole or, smaller, allocated; 64 GiB with extended L2 entries; a chain of 20. QEMU walks
them for minutes, so it takes few rounds, and its check of 4 million clusters is only run with
--long. What all sides found is asserted to be equal. All times are processor times, so that
neither what else runs here nor what QEMU waits for counts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.images import Made, make
from benchmarks.pairs import Pairs, Row, Timed, above, alternate, below, told
from benchmarks.processor import output, program, with_warm_memory, worked
from pyvirt.image import Extents, Image

PEER = Path(__file__).with_name("peers") / "qcow2_map.c"
TIB, GIB = 1 << 40, 1 << 30
#: QEMU needs up to two minutes for one of these: as often as it takes to pair and warm up.
FEW = 1
#: Bytes of memory that are touched before the results of a map are put there.
WARM = 1 << 30
#: What an unhurried administrator gives qemu-img check.
TUNED = "driver=qcow2,refcount-cache-size=64M,l2-cache-size=128M,file.filename={}"


class Bench:
    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder, self.rounds = folder, rounds
        self.peer = folder / "qcow2_map"
        subprocess.run(["cc", "-O3", "-o", self.peer, PEER], check=True)

    def c(self, what: str, made: Made) -> Timed:
        """What the C program found; it takes the time."""
        said = output(self.peer, what, made.path)
        nanoseconds, result = said.split()
        return Timed(int(nanoseconds) / 1e9, int(result))

    def extents(self, made: Made) -> Extents:
        with Image(made.path, "qcow2") as image:
            return image.extents()

    def equal_to_c(self, made: Made) -> None:
        """All columns are those of the C program, byte by byte."""
        dump = self.folder / "dump"
        output(self.peer, "map", made.path, dump)
        found = self.extents(made)
        columns = (found.start, found.length, found.host, found.flags)
        assert dump.read_bytes() == b"".join(columns), "the C program found other extents"
        dump.unlink()

    def map_columns(self, made: Made) -> Pairs:
        return alternate(
            {
                "pyvirt": lambda: with_warm_memory(WARM, lambda: len(self.extents(made))),
                "C": lambda: self.c("map", made),
            },
            self.rounds,
        )

    def map_json(self, made: Made, rounds: int) -> Pairs:
        """The text, and the columns it is made of, against ``qemu-img map``."""

        def columns() -> Extents:
            with Image(made.path, "qcow2", trust=True) as image:
                return image.extents(chain=True)

        def untold() -> Timed:
            took = with_warm_memory(WARM, columns)
            return Timed(took.seconds, _digest(took.result.json()))

        def text() -> Timed:
            took = with_warm_memory(WARM, lambda: columns().json())
            return Timed(took.seconds, _digest(took.result))

        def qemu() -> Timed:
            took = program("qemu-img", "map", "--output=json", "-f", "qcow2", made.path)
            return Timed(took.seconds, _digest(took.result))

        return alternate({"text": text, "columns": untold, "qemu": qemu}, rounds)

    def reading(self, made: Made) -> float:
        """Seconds that reading the L2 tables takes, whatever is made of them."""
        return alternate({"C": lambda: self.c("read", made)}, 5).median("C")

    def check(self, made: Made) -> Pairs:
        return alternate(
            {
                "pyvirt": lambda: worked(lambda: _faults(made)),
                "C": lambda: self.c("check", made),
            },
            self.rounds,
        )

    def check_qemu(self, made: Made, tuned: bool, rounds: int) -> Pairs:
        name = TUNED.format(made.path)
        words = ["--image-opts", name] if tuned else ["-f", "qcow2", str(made.path)]

        def qemu() -> Timed:
            took = program("qemu-img", "check", "--output=json", *words)
            said = json.loads(took.result)
            counts = {
                "end": said["image-end-offset"],
                "allocated": said["allocated-clusters"],
                "fragmented": said["fragmented-clusters"],
                "total": said["total-clusters"],
                "wrong": said.get("corruptions", 0) + said.get("leaks", 0) + said["check-errors"],
            }
            return Timed(took.seconds, counts)

        return alternate({"pyvirt": lambda: worked(lambda: _counts(made)), "qemu": qemu}, rounds)

    def measure(self, made: Made, rounds: int) -> Pairs:
        def ours() -> tuple[int, int]:
            with Image(made.path, "qcow2", trust=True) as image:
                found = image.measure("qcow2")
            return found.required, found.fully_allocated

        def qemu() -> Timed:
            words = ("qemu-img", "measure", "--output=json", "-O", "qcow2", "-f", "qcow2")
            took = program(*words, made.path)
            said = json.loads(took.result)
            return Timed(took.seconds, (said["required"], said["fully-allocated"]))

        return alternate({"pyvirt": lambda: worked(ours), "qemu": qemu}, rounds)

    def chain(self, images: int) -> Made:
        backing, top = None, None
        for number in range(images):
            path = self.folder / f"chain{number}.qcow2"
            top = make(path, 10 * GIB, 20_000, backing=backing, seed=number)
            backing = str(path)
        assert top is not None
        return top


def _digest(text: str) -> str:
    """Instead of a text of a gigabyte."""
    return hashlib.sha256(text.encode()).hexdigest()


def _faults(made: Made) -> int:
    with Image(made.path, "qcow2") as image:
        found = image.check()
    return int(found.corruptions + found.leaks)


def _counts(made: Made) -> dict[str, int]:
    with Image(made.path, "qcow2") as image:
        found = image.check()
    return {
        "end": found.image_end_offset,
        "allocated": found.allocated_clusters,
        "fragmented": found.fragmented_clusters,
        "total": found.total_clusters,
        "wrong": found.corruptions + found.leaks,
    }


#: Peak of the process while extents are made, less what was there before.
PEAK = """
import sys
from pyvirt.image import Image

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) << 10

with Image(sys.argv[1], "qcow2") as image:
    image.extents(0, 1)
    open("/proc/self/clear_refs", "w").write("5")
    before = memory("VmRSS")
    found = image.extents()
    print(memory("VmHWM") - before - 25 * len(found))
"""


def _beyond(made: Made) -> float:
    return int(output(sys.executable, "-c", PEAK, made.path)) / (1 << 20)


def _open_and_info(made: Made, times: int = 2000) -> float:
    """Microseconds to open an image and read all its header fields."""

    def open_all() -> None:
        for _ in range(times):
            with Image(made.path, "qcow2") as image:
                assert image.info.header.size == made.size

    return worked(open_all).seconds / times * 1e6


def rows(rounds: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), rounds)
        for millions, maps in ((1, 50), (4, 150)):
            made = make(bench.folder / "large.qcow2", TIB, millions * 1_000_000)
            yield from _large(bench, made, maps)
            made.path.unlink()
        yield from _fallocated(bench)
        yield from _extended(bench)
        yield from _chain(bench)


def long_rows(rounds: int) -> Iterator[Row]:
    """QEMU's check as it is by default takes minutes here."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), rounds)
        made = make(bench.folder / "large.qcow2", TIB, 4_000_000)
        yield _slow_check(bench, made)


def _large(bench: Bench, made: Made, least: float) -> Iterator[Row]:
    name = _name(made)
    bench.equal_to_c(made)
    columns = bench.map_columns(made)
    yield told(f"{name}: extents() as columns", f"{columns.median('pyvirt') * 1e3:.0f} ms")
    yield below(f"{name}: extents() to C", columns.ratio("pyvirt", "C"), 1.6)
    yield below(f"{name}: memory beyond the result", _beyond(made), 8, "MiB")
    qemu = bench.map_json(made, FEW)
    columns = qemu.ratio("qemu", "columns")
    yield above(f"{name}: qemu-img map to the chain's columns", columns, least)
    yield above(f"{name}: qemu-img map to its text", qemu.ratio("qemu", "text"), 15)
    check = bench.check(made)
    yield told(f"{name}: check()", f"{check.median('pyvirt') * 1e3:.0f} ms")
    yield below(f"{name}: check() to C", check.ratio("pyvirt", "C"), 2)
    tuned = bench.check_qemu(made, True, bench.rounds)
    yield above(f"{name}: qemu-img check, large caches", tuned.ratio("qemu", "pyvirt"), 3)
    if made.clusters <= 1_000_000:
        yield _slow_check(bench, made)
    measure = bench.measure(made, FEW)
    yield above(f"{name}: qemu-img measure", measure.ratio("qemu", "pyvirt"), 40)
    yield below(f"{name}: open and info", min(_open_and_info(made) for _ in range(5)), 60, "us")


def _name(made: Made) -> str:
    return f"{made.clusters // 1_000_000}M of 1 TiB"


def _slow_check(bench: Bench, made: Made) -> Row:
    slow = bench.check_qemu(made, False, FEW)
    return above(f"{_name(made)}: qemu-img check", slow.ratio("qemu", "pyvirt"), 150)


def _fallocated(bench: Bench) -> Iterator[Row]:
    """Data that is no hole: QEMU walks such images in another way."""
    clusters = 200_000
    if shutil.disk_usage(bench.folder).free < 2 * clusters << 16:
        yield told("fallocated: not enough space for it", "")
        return
    made = make(bench.folder / "solid.qcow2", TIB // 4, clusters, fallocated=True)
    qemu = bench.map_json(made, bench.rounds)
    name = "200k of 256 GiB, fallocated"
    yield above(f"{name}: qemu-img map to its text", qemu.ratio("qemu", "text"), 15)
    yield above(f"{name}: qemu-img map to columns", qemu.ratio("qemu", "columns"), 50)
    yield told(f"{name}: of the columns reading alone", _share(bench.reading(made), qemu))
    made.path.unlink()


def _share(reading: float, pairs: Pairs) -> str:
    """What no faster decoding would save."""
    columns, limit = pairs.median("columns"), pairs.median("qemu") / reading
    return f"{reading * 1e3:.1f} of {columns * 1e3:.1f} ms, {limit:.0f} x without the rest"


def _extended(bench: Bench) -> Iterator[Row]:
    made = make(bench.folder / "extended.qcow2", 64 * GIB, 300_000, extended=True)
    bench.equal_to_c(made)
    columns = bench.map_columns(made)
    yield told("extended L2: extents() as columns", f"{columns.median('pyvirt') * 1e3:.0f} ms")
    yield below("extended L2: extents() to C", columns.ratio("pyvirt", "C"), 2)
    qemu = bench.map_json(made, FEW)
    yield above("extended L2: qemu-img map to columns", qemu.ratio("qemu", "columns"), 100)
    made.path.unlink()


def _chain(bench: Bench) -> Iterator[Row]:
    qemu = bench.map_json(bench.chain(20), bench.rounds)
    yield told("chain of 20: extents(chain=True)", f"{qemu.median('columns') * 1e3:.0f} ms")
    yield above("chain of 20: qemu-img map to columns", qemu.ratio("qemu", "columns"), 50)
