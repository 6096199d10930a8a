"""A persistent dirty bitmap read offline, against qemu-nbd and libnbd's nbdinfo.

    python -m benchmarks image_bitmap [--rounds N]

The bitmap is made here: 1 TiB in steps of 64 KiB, with 100,000 dirty runs at random. Both sides
begin with the image file and end with the list of dirty ranges, which are asserted to be equal.
Counted is processor time: of qemu-nbd, started for this, and of nbdinfo, which asks it; that both
wait for each other does not count.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.pairs import Row, Timed, above, alternate, told
from benchmarks.processor import children, output, worked
from pyvirt.image import Image

TIB, CLUSTER = 1 << 40, 1 << 16
STEP = 64 << 10
RUNS = 100_000
#: Guest bytes whose bits fill one cluster of the bitmap.
COVERED = CLUSTER * 8 * STEP

Ranges = list[tuple[int, int]]


def make(path: Path) -> None:
    """An image without data, whose bitmap "b" is written over with bits of our own."""
    output("qemu-img", "create", "-q", "-f", "qcow2", path, str(TIB))
    output("qemu-img", "bitmap", "--add", "-g", str(STEP), path, "b")
    writes = [f"write -z -u {at} {STEP}" for at in range(0, TIB, COVERED)]
    output("qemu-io", "-f", "qcow2", *(word for one in writes for word in ("-c", one)), path)
    with Image(path, "qcow2") as image:
        layer: Any = image.layer
        bitmap = layer.bitmaps[0]
    bits = dirty_bits(TIB // STEP)
    with path.open("r+b") as file:
        table = os.pread(file.fileno(), 8 * bitmap.bitmap_table_size, bitmap.bitmap_table_offset)
        assert len(table) * CLUSTER == len(bits) * 8
        for index in range(len(table) // 8):
            offset = int.from_bytes(table[8 * index : 8 * index + 8], "big")
            assert offset > 1, "QEMU stored no cluster for this part of the bitmap"
            os.pwrite(file.fileno(), bits[index * CLUSTER : (index + 1) * CLUSTER], offset)


def dirty_bits(count: int) -> bytes:
    """`count` bits with runs of one to twenty."""
    chance = random.Random(5)
    buffer = bytearray(count // 8)
    for at in sorted(chance.sample(range(count // 32), RUNS)):
        # Each in a place of its own, so that runs never touch.
        bits = ((1 << chance.randrange(1, 21)) - 1) << chance.randrange(1, 11)
        buffer[4 * at : 4 * at + 4] = bits.to_bytes(4, "little")
    return bytes(buffer)


def by_pyvirt(path: Path) -> Timed:
    def read() -> Any:
        with Image(path, "qcow2") as image:
            layer: Any = image.layer
            return layer.dirty("b")

    took = worked(read)
    return Timed(took.seconds, list(zip(took.result.start, took.result.length, strict=True)))


def by_nbd(path: Path, folder: Path) -> Timed:
    took = children(lambda: served(path, folder / "socket"))
    return Timed(took.seconds, ranges(took.result))


def served(path: Path, socket: Path) -> str:
    """What nbdinfo says of the bitmap; qemu-nbd ends when its only client does."""
    words = ["qemu-nbd", "--read-only", "--format=qcow2", "--bitmap=b", f"--socket={socket}", path]
    server = subprocess.Popen(words)
    try:
        until = time.monotonic() + 60
        while not socket.exists() and server.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        uri = f"nbd+unix:///?socket={socket}"
        return output("nbdinfo", "--json", "--map=qemu:dirty-bitmap:b", uri)
    finally:
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def ranges(said: str) -> Ranges:
    """The dirty ones; libnbd may cut what belongs together."""
    found: Ranges = []
    for one in json.loads(said):
        if not one["type"] & 1:
            continue
        if found and sum(found[-1]) == one["offset"]:
            found[-1] = (found[-1][0], found[-1][1] + one["length"])
        else:
            found.append((one["offset"], one["length"]))
    return found


def rows(rounds: int) -> Iterator[Row]:
    if not shutil.which("qemu-nbd") or not shutil.which("nbdinfo"):
        yield told("no qemu-nbd or nbdinfo (Debian: qemu-utils, libnbd-bin)", "")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "bitmap.qcow2"
        make(path)
        sides = {"pyvirt": lambda: by_pyvirt(path), "nbd": lambda: by_nbd(path, folder)}
        pairs = alternate(sides, rounds)
        assert len(pairs.results["pyvirt"]) == RUNS
        yield told("100k dirty ranges of 1 TiB", f"{pairs.median('pyvirt') * 1e3:.1f} ms")
        yield above("qemu-nbd and nbdinfo to that", pairs.ratio("nbd", "pyvirt"), 30)
