"""Guest bytes of disk images against os.pread, qemu-img and dissect, by processor time.

    python -m benchmarks image_data [--rounds N]

The images are made here, of what a guest's disk is full of: the programs, libraries and texts of
this machine. Sides take turns on files in the page cache; what they read is asserted to be equal.
All is processor time, also of qemu-img, which unpacks and decrypts in several threads and whose
output goes to its null device; so neither what else runs here nor a disk counts. Two threads are
compared with one by the clock, less the time that they waited for a free processor.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dissect.hypervisor.disk.qcow2 import QCow2

from benchmarks.images import make
from benchmarks.pairs import Pairs, Row, Timed, above, alternate, told
from benchmarks.processor import output, patient, program, undisturbed, worked
from pyvirt._native.unpack import Unpacker
from pyvirt.image import Image

MIB = 1 << 20
SIZE = 256 * MIB
PAGE = 4096
READS = 30_000
SECRET = "secret,id=s,data=benchmark"
#: QEMU times its key derivation by its own clock, and gives up where that did not tick.
UNTIMED = "Unable to get accurate CPU usage"


class Bench:
    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder, self.rounds = folder, rounds
        self.raw = folder / "raw"
        self.raw.write_bytes(files(SIZE))
        chance = random.Random(4)
        self.places = [chance.randrange(SIZE // PAGE) * PAGE for _ in range(READS)]

    def convert(
        self, name: str, *options: str, format: str = "qcow2", raw: Path | None = None
    ) -> Path:
        path = self.folder / name
        patient("qemu-img", "convert", "--object", SECRET, *options, "-f", "raw", "-O", format,
                raw or self.raw, path, excuse=UNTIMED)  # fmt: skip
        return path

    def chain(self, length: int) -> Path:
        """Each image of the chain has its share of the clusters."""
        below, format = self.raw, "raw"
        for number in range(1, length):
            path = self.folder / f"chain{number}"
            output("qemu-img", "create", "-f", "qcow2", "-F", format, "-b", below, path)
            writes = [f"write -P {number} {at * MIB} 512k" for at in range(number, 256, length)]
            words = [word for one in writes for word in ("-c", one)]
            output("qemu-io", "-f", "qcow2", *words, path)
            below, format = path, "qcow2"
        return below

    # -- Sides ----------------------------------------------------------------------------------

    def by_pread(self) -> Timed:
        fd = os.open(self.raw, os.O_RDONLY)
        try:
            return worked(lambda: checked(os.pread(fd, PAGE, at) for at in self.places))
        finally:
            os.close(fd)

    def by_read(self, image: Image) -> Timed:
        return worked(lambda: checked(image.read(at, PAGE) for at in self.places))

    def by_readv(self, image: Image) -> Timed:
        places, buffer = array("Q", self.places), bytearray(PAGE * READS)
        image.readv(places, PAGE, buffer)
        took = worked(lambda: image.readv(places, PAGE, buffer))
        rows = memoryview(buffer)
        pages = (rows[at : at + PAGE] for at in range(0, len(rows), PAGE))
        return Timed(took.seconds, checked(pages))

    def whole(self, image: Image) -> Timed:
        """All of the image, a mebibyte at a time."""
        return Timed(worked(lambda: self.part(image, 0, 1)).seconds, True)

    def part(self, image: Image, first: int, step: int) -> None:
        """Every `step`-th mebibyte."""
        buffer = memoryview(bytearray(MIB))
        for at in range(first * MIB, SIZE, step * MIB):
            image.readinto(buffer, at)

    def qemu(self, *source: str | Path) -> Timed:
        """The same by ``qemu-img convert``."""
        null = f"driver=null-co,size={SIZE}"
        took = program("qemu-img", "convert", "--object", SECRET, "-n", *source, null)
        return Timed(took.seconds, True)


# -- Content -----------------------------------------------------------------------------------


def files(size: int) -> bytes:
    """Files of this machine in blocks of a file system: a quarter each of programs, libraries,
    Python and whatever else /usr/share holds."""
    shares = (("/usr/bin", "*"), ("/usr/lib", "*.so*"), ("/usr/lib", "*.py"), ("/usr/share", "*"))
    found = b"".join(share(Path(folder), name, size // 4) for folder, name in shares)
    return (found * (size // len(found) + 1))[:size]


def share(folder: Path, name: str, most: int) -> bytes:
    """Up to `most` bytes of the files of one kind below a folder."""
    found = bytearray()
    for path in sorted(folder.rglob(name)):
        if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
            continue
        found += path.read_bytes()
        found += bytes(-len(found) % PAGE)
        if len(found) >= most:
            break
    return bytes(found[:most])


def noise(size: int) -> bytes:
    """Few short words of random bytes: this packs to seven eighths, nearly without matches."""
    chance = random.Random(1)
    known = [chance.randbytes(chance.randrange(3, 11)) for _ in range(4000)]
    return b" ".join(chance.choices(known, k=size // 7))[:size].ljust(size, b".")


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
            took = worked(lambda: checked(_dissected(disk, at) for at in few)).seconds
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
        with Image(path) as image:
            same(image, bench.raw)
            pairs = unpacked(bench, path, image)
            yield told(f"{name}, per core", f"{SIZE / pairs.median('pyvirt') / 1e6:.0f} MB/s")
            yield above(f"{name} to qemu-img convert", pairs.ratio("qemu", "pyvirt"), least)
            yield told(f"{name}: of that its library alone", f"{library(bench, image, name):.0%}")
            yield above(f"{name}, two threads to one", two_threads(bench, image), 1.8)
    hard = bench.folder / "noise"
    hard.write_bytes(noise(16 * MIB) * (SIZE // (16 * MIB)))
    path = bench.convert("hard", "-c", raw=hard)
    with Image(path) as image:
        same(image, hard)
        ratio = unpacked(bench, path, image).ratio("qemu", "pyvirt")
        yield told("zlib with hardly any matches, to qemu-img convert", f"{ratio:.2f} x")


def unpacked(bench: Bench, path: Path, image: Image) -> Pairs:
    """All of the image, against ``qemu-img convert`` of it."""
    source = ("-f", "qcow2", "--target-image-opts", path)
    sides = {"pyvirt": lambda: bench.whole(image), "qemu": lambda: bench.qemu(*source)}
    return alternate(sides, bench.rounds)


def library(bench: Bench, image: Image, name: str) -> float:
    """How much of reading all of the image is the library's own work on blocks in memory."""
    extents, unpacker = image.extents(), Unpacker()
    rows = zip(extents.host, extents.stored, extents.length, strict=True)
    blocks = [(image.source.pread(stored, host), size) for host, stored, size in rows if stored]

    def alone() -> Timed:
        return worked(lambda: all(unpacker.unpack(name, block, size) for block, size in blocks))

    return alternate({"alone": alone, "all": lambda: bench.whole(image)}, 3).ratio("alone", "all")


def two_threads(bench: Bench, image: Image) -> float:
    """How many times as fast two are, had each a processor for itself."""
    seconds: list[float] = []

    def half(first: int) -> None:
        seconds.append(undisturbed(lambda: bench.part(image, first, 2)))

    def two() -> Timed:
        seconds.clear()
        threads = [threading.Thread(target=half, args=(first,)) for first in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Timed(max(seconds), None)

    def one() -> Timed:
        return Timed(undisturbed(lambda: bench.part(image, 0, 1)), None)

    return alternate({"one": one, "two": two}, bench.rounds).ratio("one", "two")


def chained(bench: Bench) -> Iterator[Row]:
    path = bench.chain(20)
    flat = bench.folder / "flat"
    output("qemu-img", "convert", "-O", "raw", path, flat)
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
    gib = bench.folder / "gib"
    gib.write_bytes(bench.raw.read_bytes() * 4)
    plain = bench.convert("plain of a gib", raw=gib)
    zlib = bench.convert("zlib of a gib", "-c", "-m", "2", raw=gib)
    pairs = compare(plain, zlib, bench.rounds)
    yield told("compare(), plain with zlib, 1 GiB", f"{pairs.median('pyvirt'):.2f} s")
    yield above("compare(), plain with zlib, to qemu-img", pairs.ratio("qemu", "pyvirt"), 2.5)
    large = make(bench.folder / "large.qcow2", 1 << 40, 1_000_000).path
    copy = bench.folder / "copy.qcow2"
    output("cp", "--sparse=always", large, copy)
    pairs = compare(large, copy, 1)
    yield told("compare(), 1 TiB with a copy", f"{pairs.median('pyvirt'):.2f} s")
    yield above("compare(), 1 TiB with a copy, to qemu-img", pairs.ratio("qemu", "pyvirt"), 20)


def compare(a: Path, b: Path, rounds: int) -> Pairs:
    """Both sides find the images equal: qemu-img would not return 0 otherwise."""

    def pyvirt() -> bool:
        with Image(a) as one, Image(b) as other:
            return one.compare(other).equal

    def qemu() -> Timed:
        took = program("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", a, b)
        return Timed(took.seconds, True)

    return alternate({"pyvirt": lambda: worked(pyvirt), "qemu": qemu}, rounds)


def rows(rounds: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < 20 * SIZE:
            yield told("not enough space", "")
            return
        bench = Bench(Path(folder), rounds)
        for claims in (plain, packed, chained, encrypted, compared):
            yield from claims(bench)
