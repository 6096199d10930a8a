"""Guest bytes of disk images against os.pread, qemu-img and dissect.

    python -m benchmarks image_data [--rounds N]

The images are made here. Sides take turns on files in the page cache; what they read is
asserted to be equal. Work of qemu-img is counted in processor time, since it unpacks and
decrypts in several threads, and goes to its null device, so that no side writes.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import subprocess
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dissect.hypervisor.disk.qcow2 import QCow2

from benchmarks.images import make
from benchmarks.pairs import Pairs, Row, Timed, above, alternate, told
from pyvirt.image import Image

MIB = 1 << 20
SIZE = 256 * MIB
PAGE = 4096
READS = 30_000
SECRET = "secret,id=s,data=benchmark"


class Bench:
    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder, self.rounds = folder, rounds
        self.raw = folder / "raw"
        self.raw.write_bytes(words(16 * MIB) * (SIZE // (16 * MIB)))
        chance = random.Random(4)
        self.places = [chance.randrange(SIZE // PAGE) * PAGE for _ in range(READS)]

    def convert(self, name: str, *options: str, format: str = "qcow2") -> Path:
        path = self.folder / name
        run("qemu-img", "convert", "--object", SECRET, *options, "-f", "raw", "-O", format,
            self.raw, path)  # fmt: skip
        return path

    def chain(self, length: int) -> Path:
        """Each image of the chain has its share of the clusters."""
        below, format = self.raw, "raw"
        for number in range(1, length):
            path = self.folder / f"chain{number}"
            run("qemu-img", "create", "-f", "qcow2", "-F", format, "-b", below, path)
            writes = [f"write -P {number} {at * MIB} 512k" for at in range(number, 256, length)]
            run("qemu-io", "-f", "qcow2", *(word for one in writes for word in ("-c", one)), path)
            below, format = path, "qcow2"
        return below

    # -- Sides ----------------------------------------------------------------------------------

    def by_pread(self) -> Timed:
        fd = os.open(self.raw, os.O_RDONLY)
        try:
            return timed(lambda: checked(os.pread(fd, PAGE, at) for at in self.places))
        finally:
            os.close(fd)

    def by_read(self, image: Image) -> Timed:
        return timed(lambda: checked(image.read(at, PAGE) for at in self.places))

    def by_readv(self, image: Image) -> Timed:
        places, buffer = array("Q", self.places), bytearray(PAGE * READS)
        image.readv(places, PAGE, buffer)
        took = timed(lambda: image.readv(places, PAGE, buffer))
        rows = memoryview(buffer)
        pages = (rows[at : at + PAGE] for at in range(0, len(rows), PAGE))
        return Timed(took.seconds, checked(pages))

    def whole(self, image: Image) -> Timed:
        """All of the image by processor time, a mebibyte at a time."""
        buffer = memoryview(bytearray(MIB))
        begun = time.process_time()
        for at in range(0, SIZE, MIB):
            image.readinto(buffer, at)
        return Timed(time.process_time() - begun, True)

    def qemu(self, *source: str | Path) -> Timed:
        """The same by ``qemu-img convert``."""
        null = f"driver=null-co,size={SIZE}"
        return by_processor("qemu-img", "convert", "--object", SECRET, "-n", *source, null)


def words(size: int) -> bytes:
    """Text that packs to about a third."""
    chance = random.Random(1)
    known = [chance.randbytes(chance.randrange(3, 11)) for _ in range(4000)]
    return b" ".join(chance.choices(known, k=size // 7))[:size].ljust(size, b".")


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def by_processor(*words: str | Path, expected: int = 0) -> Timed:
    """The processor time of a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run([str(word) for word in words], stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.returncode == expected, words
    return Timed(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, True)


def timed(act: Callable[[], Any]) -> Timed:
    begun = time.perf_counter()
    result = act()
    return Timed(time.perf_counter() - begun, result)


def checked(pieces: Iterator[Any]) -> int:
    """Few bytes of every piece, so that equal sums mean equal reads and cost little."""
    return sum(piece[0] + piece[2048] * 3 + piece[4095] * 7 for piece in pieces)


def same(image: Image, path: Path) -> None:
    with path.open("rb") as file:
        expected = hashlib.file_digest(file, "sha256").hexdigest()
    assert image.hash() == expected, "an image reads as something else"


def rate(pairs: Pairs, side: str) -> float:
    return READS / pairs.median(side) / 1000


# -- Claims ------------------------------------------------------------------------------------


def plain(bench: Bench) -> Iterator[Row]:
    path = bench.convert("plain")
    with Image(path) as image:
        same(image, bench.raw)
        pairs = alternate(
            {
                "read": lambda: bench.by_read(image),
                "readv": lambda: bench.by_readv(image),
                "pread": bench.by_pread,
            },
            bench.rounds,
        )
        yield single(rate(pairs, "read"), pairs.ratio("pread", "read"))
        yield above("4 KiB random readv", rate(pairs, "readv"), 450, "K/s")
        yield above("sequential to os.pread on raw", sequential(bench, image), 0.8)
        with path.open("rb") as file:
            disk: Any = QCow2(file).open() if hasattr(QCow2, "open") else QCow2(file)
            few = bench.places[:2000]
            took = timed(lambda: checked(_dissected(disk, at) for at in few)).seconds
        yield told("dissect's 4 KiB random read", f"{len(few) / took / 1000:.0f} K/s")


def single(rate: float, ratio: float) -> Row:
    """Either is enough: the one tells of this machine, the other of the work."""
    value = f"{rate:.0f} K/s, {ratio:.2f} x os.pread on raw"
    met = rate >= 250 or ratio >= 0.75
    return Row("4 KiB random read", value, ">= 250 K/s or 0.75 x", met)


def _dissected(disk: Any, at: int) -> bytes:
    disk.seek(at)
    return bytes(disk.read(PAGE))


def sequential(bench: Bench, image: Image) -> float:
    buffer = bytearray(MIB)
    fd = os.open(bench.raw, os.O_RDONLY)

    def by_preadv() -> None:
        for at in range(0, SIZE, MIB):
            os.preadv(fd, [buffer], at)

    def by_readinto() -> None:
        for at in range(0, SIZE, MIB):
            image.readinto(buffer, at)

    try:
        return alternate({"read": by_readinto, "pread": by_preadv}, bench.rounds).ratio(
            "pread", "read"
        )
    finally:
        os.close(fd)


def packed(bench: Bench) -> Iterator[Row]:
    for name, least in (("zlib", 2.0), ("zstd", 1.5)):
        path = bench.convert(name, "-c", "-o", f"compression_type={name}")
        source = ("-f", "qcow2", "--target-image-opts", path)
        with Image(path) as image:
            same(image, bench.raw)
            pairs = alternate(
                {"pyvirt": lambda i=image: bench.whole(i), "qemu": lambda s=source: bench.qemu(*s)},
                bench.rounds,
            )
            yield told(f"{name}, per core", f"{SIZE / pairs.median('pyvirt') / 1e6:.0f} MB/s")
            yield above(f"{name} to qemu-img convert", pairs.ratio("qemu", "pyvirt"), least)
            yield above(f"{name}, two threads to one", two_threads(bench, image), 1.8)


def two_threads(bench: Bench, image: Image) -> float:
    def half(start: int) -> None:
        buffer = memoryview(bytearray(MIB))
        for at in range(start, start + SIZE // 2, MIB):
            image.readinto(buffer, at)

    def one() -> None:
        half(0)
        half(SIZE // 2)

    def two() -> None:
        other = threading.Thread(target=half, args=(0,))
        other.start()
        half(SIZE // 2)
        other.join()

    return alternate({"one": one, "two": two}, bench.rounds).ratio("one", "two")


def chained(bench: Bench) -> Iterator[Row]:
    path = bench.chain(20)
    flat = bench.folder / "flat"
    run("qemu-img", "convert", "-O", "raw", path, flat)
    with Image(path, trust=True) as image:
        assert len(image.layers) == 20
        same(image, flat)
        pairs = alternate({"read": lambda: bench.by_read(image)}, bench.rounds)
        yield above("chain of 20: 4 KiB random read", rate(pairs, "read"), 150, "K/s")


def encrypted(bench: Bench) -> Iterator[Row]:
    path = bench.convert("luks", "-o", "key-secret=s,iter-time=10", format="luks")
    source = f"driver=luks,key-secret=s,file.filename={path}"
    with Image(path, passphrase="benchmark") as image:
        same(image, bench.raw)
        pairs = alternate(
            {
                "pyvirt": lambda: bench.whole(image),
                "qemu": lambda: bench.qemu("--image-opts", "--target-image-opts", source),
            },
            bench.rounds,
        )
    yield told("LUKS, per core", f"{SIZE / pairs.median('pyvirt') / 1e6:.0f} MB/s")
    yield above("LUKS to qemu-img convert", pairs.ratio("qemu", "pyvirt"), 2)


def compared(bench: Bench) -> Iterator[Row]:
    a, b = bench.folder / "plain", bench.folder / "zlib"
    pairs = alternate(
        {"pyvirt": lambda: equal(a, b), "qemu": lambda: by_processor("qemu-img", "compare", a, b)},
        bench.rounds,
    )
    yield above("compare(), plain with zlib, to qemu-img", pairs.ratio("qemu", "pyvirt"), 2.5)
    large = make(bench.folder / "large.qcow2", 1 << 40, 1_000_000).path
    copy = bench.folder / "copy.qcow2"
    run("cp", "--sparse=always", large, copy)
    pairs = alternate(
        {
            "pyvirt": lambda: equal(large, copy),
            "qemu": lambda: by_processor("qemu-img", "compare", large, copy),
        },
        1,
    )
    yield told("compare(), 1 TiB with a copy", f"{pairs.median('pyvirt'):.2f} s")
    yield above("compare(), 1 TiB with a copy, to qemu-img", pairs.ratio("qemu", "pyvirt"), 20)


def equal(a: Path, b: Path) -> Timed:
    begun = time.process_time()
    with Image(a) as one, Image(b) as other:
        found = one.compare(other).equal
    return Timed(time.process_time() - begun, found)


def rows(rounds: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < 8 * SIZE:
            yield told("not enough space", "")
            return
        bench = Bench(Path(folder), rounds)
        for claims in (plain, packed, chained, encrypted, compared):
            yield from claims(bench)
