"""Mutated images of every format through all that `Image` does: an answer, or an error of ours.

PYVIRT_FUZZ is how many seconds to go on with new mutations for each image (the suite tries a
few, always the same ones); what fails is written into the folder that PYVIRT_FUZZ_FAILED names.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from support import imagebuilders as build

from pyvirt.errors import PyvirtError
from pyvirt.image import BytesSource, Image, inspect_untrusted
from pyvirt.image.budget import Budget

SECONDS = float(os.environ.get("PYVIRT_FUZZ", "0"))
ROUNDS = 25
MIB = 1 << 20
NOISE = random.Random(5).randbytes(1 << 13)
#: Little, so that a claim of much is an error here.
LITTLE = Budget(memory=8 * MIB)

BUILT: dict[str, tuple[str, Callable[[], bytes]]] = {
    "bochs": ("bochs", lambda: build.bochs({2: {0: NOISE[:512]}}, 4)),
    "cloop": ("cloop", lambda: build.cloop(NOISE)),
    "dmg": ("dmg", lambda: build.dmg([("raw", NOISE[:4096]), ("zlib", NOISE), ("zero", NOISE)])),
    "cowd": ("vmdk", lambda: build.cowd({0: NOISE[:4096]}, 10)),
    "sesparse": ("vmdk", lambda: build.sesparse({0: NOISE[:4096], 1: None}, 10)),
    "vhd-differencing": ("vpc", lambda: build.vhd_differencing({1: {0: NOISE[:512]}}, 3, ".\\x")),
    "luks2": ("luks", lambda: build.luks2(NOISE[:4096])),
}

#: Options of qemu-img; "-c" compresses.
MADE = {
    "qcow2": "qcow2 cluster_size=512",
    "qcow2-packed": "qcow2 cluster_size=4k -c",
    "qcow2-zstd": "qcow2 compression_type=zstd,cluster_size=4k -c",
    "qcow2-extended": "qcow2 extended_l2=on,cluster_size=16k",
    "qcow2-v2": "qcow2 compat=0.10,cluster_size=512",
    "qcow2-refcounts": "qcow2 refcount_bits=1,cluster_size=512",
    "qcow2-snapshots": "qcow2 cluster_size=512",
    "qcow2-bitmaps": "qcow2 cluster_size=512",
    "qcow": "qcow",
    "qed": "qed cluster_size=4096,table_size=2",
    "vdi": "vdi",
    "vhdx": "vhdx block_size=1M",
    "vpc": "vpc force_size=on",
    "vmdk": "vmdk",
    "vmdk-stream": "vmdk subformat=streamOptimized",
    "parallels": "parallels cluster_size=4k",
    "mbr": "raw",
    "gpt": "raw",
    "ext4": "raw",
}
SIZE = 200 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seeds")


def content() -> bytes:
    data = bytearray(SIZE)
    for at in 0, 70_000, 150_000:
        data[at : at + 6000] = b"seed %d " % at * 600 + NOISE[:1000]
    return bytes(data[:SIZE])


def qemu(*words: str | Path) -> None:
    subprocess.run([*map(str, words)], check=True, capture_output=True, timeout=60)


def filled(path: Path, name: str) -> None:
    """A raw disk with a partition table or a file system on it."""
    path.write_bytes(bytes(2 * MIB))
    words = {
        "mbr": ["sfdisk", "-q"], "gpt": ["sfdisk", "-q", "-X", "gpt"], "ext4": ["mkfs.ext4", "-q"],
    }[name]  # fmt: skip
    tool = shutil.which(words[0], path="/usr/sbin:/sbin:/usr/bin")
    if tool is None:
        pytest.skip(f"needs {words[0]}")
    parts = b"start=64,size=500\nstart=600,size=200\n,,E\n" if name == "mbr" else b",1M\n,\n"
    command = [tool, *words[1:], str(path)]
    subprocess.run(command, input=parts, check=True, capture_output=True, timeout=60)


@cache
def made(folder: Path, name: str) -> tuple[str, bytes]:
    """The format and the bytes of a seed."""
    if name in BUILT:
        return BUILT[name][0], BUILT[name][1]()
    if shutil.which("qemu-img") is None:
        pytest.skip("needs qemu-img")
    format, *words = MADE[name].split()
    path, raw = folder / name, folder / "raw"
    if name in ("mbr", "gpt", "ext4"):
        filled(path, name)
    else:
        raw.write_bytes(content())
        options = [part for word in words for part in (("-o", word) if "=" in word else (word,))]
        qemu("qemu-img", "convert", "-f", "raw", "-O", format, *options, raw, path)
    if name == "qcow2-snapshots":
        qemu("qemu-img", "snapshot", "-c", "one", path)
        qemu("qemu-io", "-f", "qcow2", "-c", "write -P 9 70k 3k", path)
        qemu("qemu-img", "snapshot", "-c", "two", path)
    if name == "qcow2-bitmaps":
        qemu("qemu-img", "bitmap", "--add", "-g", "512", path, "b")
        qemu("qemu-io", "-f", "qcow2", "-c", "write -P 9 70k 3k", path)
    return format, path.read_bytes()


VALUES = [0, 1, 2, 511, 512, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 63) - 512,
          (1 << 64) - 1]  # fmt: skip


def places(data: bytes) -> list[int]:
    """Where something is: most bytes of an image are zeros, or what the guest wrote."""
    found = [at for at in range(0, len(data) - 8, 4) if any(data[at : at + 4])]
    return found[:4096] + found[-256:]


def mutated(data: bytes, found: list[int], chance: random.Random) -> bytes:
    """Bits, bytes, numbers and pieces changed; now and then cut."""
    result = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        at = chance.choice(found) if chance.random() < 0.9 else chance.randrange(len(data))
        at = min(max(0, at + chance.randrange(-4, 5)), len(data) - 8)
        kind = chance.randrange(5)
        if kind == 0:
            result[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            value = (chance.choice(VALUES) + chance.randrange(-2, 3)) & (1 << 64) - 1
            code = chance.choice("<>") + chance.choice("HIQ")
            struct.pack_into(code, result, at, value & (1 << 8 * struct.calcsize(code)) - 1)
        elif kind == 2:
            where = chance.choice(found)
            size = chance.choice([4, 8, 16, 512])
            piece = result[where : where + size]
            result[at : at + len(piece)] = piece
        elif kind == 3:
            size = chance.choice([1, 4, 8])
            result[at : at + size] = chance.randbytes(size)
        else:  # A number near what is there.
            code = chance.choice("<>") + chance.choice("IQ")
            near = struct.unpack_from(code, result, at)[0] + chance.choice([-512, -1, 1, 2, 512])
            struct.pack_into(code, result, at, near & (1 << 8 * struct.calcsize(code)) - 1)
    if chance.random() < 0.05:
        del result[chance.randrange(len(result)) :]
    return bytes(result)


def everything(data: bytes, format: str | None, path: Path | None = None) -> None:
    """All that can be asked of an image; each question may be answered or refused.

    Of a file, where there is a `path`: those are read by other ways than what is in memory.
    """
    if path is not None:
        path.write_bytes(data)
    with Image(path or BytesSource(data), format, budget=LITTLE) as image:
        chance = random.Random(len(data))
        asked: list[Callable[[Image], object]] = [
            lambda image: image.infos,
            lambda image: sum(one.length for one in image.extents()[:1000]),
            lambda image: image.extents(chain=True, holes=True).json()[:1] if small(image) else 0,
            lambda image: image.read(0, 70_000),
            lambda image: image.read(max(0, image.size - 5000), 9000),
            lambda image: [image.read(chance.randrange(image.size), 999) for _ in range(5)],
            lambda image: image.check(),
            lambda image: image.statistics(),
            lambda image: image.measure(),
            lambda image: image.partitions(nested=True),
            lambda image: snapshots(data, image),
            lambda image: [image.layer.bitmap(one.name)  # type: ignore[attr-defined]
                           for one in getattr(image.info, "bitmaps", [])],
        ]  # fmt: skip
        for ask in asked:
            try:
                ask(image)
            except PyvirtError:
                pass
            except ValueError:
                assert image.size == 0  # Nothing to choose a place in.


def small(image: Image) -> bool:
    return len(image.extents()) < 2000


def snapshots(data: bytes, image: Image) -> None:
    for one in getattr(image.info, "snapshots", ())[:3]:
        with Image(BytesSource(data), "qcow2", snapshot=one.name, budget=LITTLE) as opened:
            opened.read(60_000, 20_000)
        image.diff(one.name)


def mutations(data: bytes, seed: str) -> Iterator[bytes]:
    found = places(data)
    if not SECONDS:
        chance = random.Random(seed)
        yield from (mutated(data, found, chance) for _ in range(ROUNDS))
        return
    chance, until = random.Random(), time.monotonic() + SECONDS
    while time.monotonic() < until:
        yield mutated(data, found, chance)


@pytest.mark.parametrize("name", [*BUILT, *MADE])
def test_a_seed_is_answered(folder: Path, name: str) -> None:
    """Or the mutations would be of something that was refused anyway."""
    format, data = made(folder, name)
    with Image(BytesSource(data), format, budget=LITTLE) as image:
        assert sum(one.length for one in image.extents()) == image.size > 0
        if name not in ("luks2", "vhd-differencing"):  # Without a key, and without its parent.
            assert any(image.read(0, image.size))


@pytest.mark.timeout(60 + 20 * SECONDS)
@pytest.mark.parametrize("name", [*BUILT, *MADE])
def test_anything_is_answered_or_refused(folder: Path, name: str) -> None:
    format, data = made(folder, name)
    count = 0
    for count, broken in enumerate(mutations(data, name), 1):
        try:
            if count % 5 == 0:
                inspect(folder, broken)
            for how in (format,) if count % 4 else (format, None):
                everything(broken, how, folder / "mutated" if count % 3 == 0 else None)
        except PyvirtError:
            pass
        except BaseException:
            kept = Path(os.environ.get("PYVIRT_FUZZ_FAILED", str(folder))) / f"{name}.failed"
            kept.write_bytes(broken)
            raise
    print(f"{name}: {count} mutations")


def inspect(folder: Path, data: bytes) -> None:
    path = folder / "mutated"
    path.write_bytes(data)
    verdict = inspect_untrusted(path)
    assert verdict.safe == (not verdict.reasons)
