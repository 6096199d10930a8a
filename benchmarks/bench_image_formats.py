"""Detection, and maps of VMDK, VDI, VHD and VHDX, against qemu-img map and dissect.

    python -m benchmarks image_formats [--rounds N]

The images are made here: their tables are full of blocks in random order, their data is a hole.
The sides' extents are brought into one form, and asserted to be equal, behind the clock. QEMU has
no map of VHDX. dissect.hypervisor looks up block after block, as its reads do. All times are
processor times.
"""

from __future__ import annotations

import json
import random
import struct
import subprocess
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.pairs import Row, Timed, above, alternate, below, told
from benchmarks.processor import program, worked
from pyvirt.image import Extents, FileSource, Flag, Image
from pyvirt.image.detection import detect

GIB, TIB, MIB = 1 << 30, 1 << 40, 1 << 20
#: dissect takes seconds, so that few rounds must do.
FEW = 3

#: Blocks of the guest, joined where they go on in the file too: start, length, offset.
Placed = list[tuple[int, int, int]]


@frozen
class Big:
    """An image of `size` bytes and how dissect finds a block of it."""

    format: str
    path: Path
    size: int
    block: int
    #: Opens it with dissect; the function returned gives a block's place in the file, or None.
    peer: Callable[[Any], Callable[[int], int | None]]


# -- The images -------------------------------------------------------------------------------


def create(path: Path, format: str, size: int, *options: str) -> None:
    words = [word for option in options for word in ("-o", option)]
    subprocess.run(["qemu-img", "create", "-q", "-f", format, *words, path, str(size)], check=True)


def order(blocks: int, used: int, seed: int) -> Iterator[tuple[int, int]]:
    """Blocks that are used, and the number of the place that each has in the file."""
    rng = random.Random(seed)
    places = list(range(used))
    rng.shuffle(places)
    return zip(sorted(rng.sample(range(blocks), used)), places, strict=True)


def write(path: Path, offset: int, table: array[int] | bytes, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(table)
        file.truncate(size)


def vdi(folder: Path, size: int) -> Big:
    path = folder / "big.vdi"
    create(path, "vdi", size)
    head = path.read_bytes()[:512]
    table, data = struct.unpack_from("<II", head, 340)
    count, used = size // MIB, size // MIB // 2
    entries = array("I", [0xFFFFFFFF]) * count
    for block, place in order(count, used, 1):
        entries[block] = place
    write(path, table, entries, data + used * MIB)

    def peer(file: Any) -> Callable[[int], int | None]:
        from dissect.hypervisor.disk.vdi import VDI

        stream = VDI(file).open()
        return lambda block: None if (at := stream.map[block]) < 0 else data + at * MIB

    return Big("vdi", path, size, MIB, peer)


def vhd(folder: Path, size: int) -> Big:
    path = folder / "big.vhd"
    create(path, "vpc", size, "force_size=on")
    footer = path.read_bytes()[:512]
    table = struct.unpack(">Q", path.read_bytes()[512 + 16 : 512 + 24])[0]
    block, bitmap = 2 * MIB, 512
    count = size // block
    used = count // 2
    data = (table + 4 * count + 511) // 512 * 512
    entries = array("I", [0xFFFFFFFF]) * count
    for number, place in order(count, used, 2):
        entries[number] = (data + place * (block + bitmap)) // 512
    entries.byteswap()
    end = data + used * (block + bitmap)
    write(path, table, entries, end)
    write(path, end, footer, end + 512)

    def peer(file: Any) -> Callable[[int], int | None]:
        from dissect.hypervisor.disk.vhd import VHD

        bat = VHD(file).disk.bat
        return lambda number: None if (at := bat[number]) is None else at * 512 + bitmap

    return Big("vpc", path, size, block, peer)


def vhdx(folder: Path, size: int) -> Big:
    path = folder / "big.vhdx"
    create(path, "vhdx", size, "block_size=1M")
    with Image(path, "vhdx") as image:
        bat, ratio = image.info.bat, image.info.metadata.chunk_ratio
    count = size // MIB
    entries = array("Q", [0]) * (count + count // ratio)
    first = (bat.file_offset + bat.length) // MIB
    for block, place in order(count, count // 2, 3):
        entries[block + block // ratio] = (first + place) << 20 | 6
    write(path, bat.file_offset, entries, (first + count // 2) * MIB)

    def peer(file: Any) -> Callable[[int], int | None]:
        from dissect.hypervisor.disk.vhdx import VHDX

        table = VHDX(file).bat

        def find(block: int) -> int | None:
            entry = table.pb(block)
            return entry.file_offset_mb * MIB if entry.state == 6 else None

        return find

    return Big("vhdx", path, size, MIB, peer)


def vmdk(folder: Path, size: int) -> Big:
    path = folder / "big.vmdk"
    create(path, "vmdk", size)
    with Image(path, "vmdk") as image:
        header = image.info.header
    grain, count = header.grain_size * 512, size // (header.grain_size * 512)
    directory = path.read_bytes()[header.gd_offset * 512 :][: count // 512 * 4]
    table = struct.unpack_from("<I", directory)[0] * 512
    assert array("I", directory) == array("I", range(table // 512, table // 512 + count // 128, 4))
    entries = array("I", [0]) * count
    used = count // 8
    for number, place in order(count, used, 4):
        entries[number] = header.over_head + place * header.grain_size
    write(path, table, entries, header.over_head * 512 + used * grain)

    def peer(file: Any) -> Callable[[int], int | None]:
        from dissect.hypervisor.disk.vmdk import SparseDisk

        disk = SparseDisk(file)
        return lambda number: disk._lookup_grain(number) * 512 or None

    return Big("vmdk", path, size, grain, peer)


# -- The sides --------------------------------------------------------------------------------


def joined(blocks: Iterable[tuple[int, int, int]]) -> Placed:
    """Neighbours as one, as every side may or may not have them."""
    found: Placed = []
    for start, length, host in blocks:
        if found:
            before, size, at = found[-1]
            if before + size == start and at + size == host:
                found[-1] = (before, size + length, at)
                continue
        found.append((start, length, host))
    return found


def by_pyvirt(big: Big) -> Timed:
    def look() -> Extents:
        with Image(big.path, big.format) as image:
            return image.extents()

    took = worked(look)
    extents = took.result
    rows = zip(extents.start, extents.length, extents.host, extents.flags, strict=True)
    return Timed(took.seconds, joined(row[:3] for row in rows if row[3] & Flag.OFFSET))


def by_qemu(big: Big) -> Timed:
    took = program("qemu-img", "map", "--output=json", "-f", big.format, big.path)
    said = json.loads(took.result)
    rows = ((one["start"], one["length"], one["offset"]) for one in said if one["data"])
    return Timed(took.seconds, joined(rows))


def by_dissect(big: Big) -> Timed:
    def look() -> list[int | None]:
        with big.path.open("rb") as file:
            find = big.peer(file)
            return [find(number) for number in range(big.size // big.block)]

    took = worked(look)
    rows = ((n * big.block, big.block, at) for n, at in enumerate(took.result) if at is not None)
    return Timed(took.seconds, joined(rows))


def maps(big: Big, blocks: str) -> Iterator[Row]:
    sides = {"pyvirt": lambda: by_pyvirt(big), "dissect": lambda: by_dissect(big)}
    if big.format != "vhdx":
        sides["qemu"] = lambda: by_qemu(big)
    pairs = alternate(sides, FEW)
    name = f"{big.format}, {blocks}"
    yield told(f"{name}: extents()", f"{pairs.median('pyvirt') * 1e3:.1f} ms")
    if "qemu" in sides:
        yield above(f"{name}: qemu-img map to extents()", pairs.ratio("qemu", "pyvirt"), 10)
    yield above(f"{name}: dissect to extents()", pairs.ratio("dissect", "pyvirt"), 3)


def fastest(act: Callable[[], object], times: int, rounds: int) -> float:
    """Microseconds of one call, in the fastest round."""

    def often() -> None:
        for _ in range(times):
            act()

    return min(worked(often).seconds / times * 1e6 for _ in range(rounds))


def detection(big: Big, rounds: int) -> Row:
    with FileSource(big.path) as source:
        assert detect(source)[0].format == big.format
        took = fastest(lambda: detect(source), 500, rounds)
    return below(f"{big.format}: detection among all formats", took, 100, "us")


def opened(big: Big, rounds: int) -> Row:
    def look() -> None:
        with Image(big.path, big.format) as image:
            assert image.info is not None
            assert image.size == big.size

    took = fastest(look, 300, rounds)
    return told(f"{big.format}: open and info", f"{took:.0f} us")


def rows(rounds: int) -> Iterator[Row]:
    made = {
        "512 K of 1 M blocks": vdi,
        "256 K of 512 K blocks": vhd,
        "512 K of 1 M blocks, bitmaps between": vhdx,
        "512 K of 4 M grains": vmdk,
    }
    for blocks, make in made.items():
        with tempfile.TemporaryDirectory() as folder:
            big = make(Path(folder), 256 * GIB if make is vmdk else TIB)
            yield detection(big, rounds)
            yield opened(big, rounds)
            yield from maps(big, blocks)
