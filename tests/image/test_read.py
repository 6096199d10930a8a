"""Guest bytes of images that qemu-img made, against qemu-img's own raw copy of them."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import subprocess
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import ImageError
from pyvirt.image import Image

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")

KIB = 1 << 10
SIZE = 3 * (1 << 20) + 512  # no whole number of clusters


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def raw_copy(path: Path, format: str = "qcow2") -> bytes:
    """What QEMU reads."""
    copy = path.with_suffix(".copy")
    run("qemu-img", "convert", "-U", "-f", format, "-O", "raw", path, copy)
    content = copy.read_bytes()
    copy.unlink()
    return content


def content(seed: int = 1, size: int = SIZE) -> bytes:
    """Zeros, text that packs well and noise that does not, in pieces of no round size."""
    chance, made = random.Random(seed), bytearray()
    while len(made) < size:
        length = chance.randrange(1, 150_000)
        kind = chance.randrange(3)
        text = b"%d " % length * (length // 2 + 1)
        made += (bytes(length), text[:length], chance.randbytes(length))[kind]
    return bytes(made[:size])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("read")
    (path / "raw").write_bytes(content())
    return path


OPTIONS = {
    "plain": ("qcow2", ""),
    "version 2": ("qcow2", "compat=0.10"),
    "clusters of 512": ("qcow2", "cluster_size=512"),
    "clusters of 2 MiB": ("qcow2", "cluster_size=2M"),
    "extended": ("qcow2", "extended_l2=on"),
    "metadata": ("qcow2", "preallocation=metadata"),
    "falloc": ("qcow2", "preallocation=falloc"),
    "full": ("qcow2", "preallocation=full"),
    "zstd": ("qcow2", "compression_type=zstd"),
    "qed": ("qed", ""),
    "vdi": ("vdi", ""),
    "vhdx": ("vhdx", ""),
    "vpc": ("vpc", "force_size=on"),
    "vmdk": ("vmdk", ""),
    "stream": ("vmdk", "subformat=streamOptimized"),
    "parallels": ("parallels", ""),
    "qcow": ("qcow", ""),
}
PACKED = {"plain", "version 2", "clusters of 512", "clusters of 2 MiB", "extended", "zstd"}
CASES = [(name, False) for name in OPTIONS] + [(name, True) for name in sorted(PACKED)]


@pytest.mark.parametrize(("name", "packed"), CASES)
def test_every_format_reads_as_qemu_reads_it(folder: Path, name: str, packed: bool) -> None:
    format, options = OPTIONS[name]
    path = folder / f"{name}-{packed}"
    extra = ["-c"] * packed + (["-o", options] if options else [])
    run("qemu-img", "convert", *extra, "-f", "raw", "-O", format, folder / "raw", path)
    expected = raw_copy(path, format)
    with Image(path) as image:
        assert image.read(0, len(expected) + 1) == expected
        _everywhere(image, expected)


def _everywhere(image: Image, expected: bytes) -> None:
    """Ranges of any size at any place, and beyond the end."""
    chance, size = random.Random(7), len(expected)
    for _ in range(100):
        offset, length = chance.randrange(size + 1000), chance.choice([1, 511, 4096, 100_000])
        assert image.read(offset, length) == expected[offset : offset + length]
        buffer = bytearray(b"x" * length)
        got = image.readinto(buffer, offset)
        assert buffer[:got] == expected[offset : offset + length]
        assert buffer[got:] == b"x" * (length - got)


def test_what_qemu_io_writes_is_read(tmp_path: Path) -> None:
    """Zero clusters with and without a place, discards, packed clusters, subclusters."""
    path = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=64k", path, "4M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", "-c", "write -z 100k 200k",
        "-c", "write -z -u 512k 128k", "-c", "discard 768k 64k", "-c", "write -P 2 2000001 999",
        "-c", "write -c -P 3 3M 64k", "-c", "write -P 4 3200k 2k", path)  # fmt: skip
    expected = raw_copy(path)
    with Image(path) as image:
        assert image.read(0, 4 << 20) == expected
        _everywhere(image, expected)


# -- Chains ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """Eight images of different formats, cluster sizes and sizes, the lowest the shortest."""
    folder = tmp_path_factory.mktemp("chain")
    below = folder / "0.raw"
    below.write_bytes(content(3, 700_001 // 512 * 512))
    format, chance = "raw", random.Random(5)
    for number in range(1, 8):
        options = ["cluster_size=512", "extended_l2=on", "compat=0.10", "cluster_size=1M"]
        path = folder / f"{number}.qcow2"
        size = 900_096 + 300_032 * number + (2 << 20) * (number == 7)
        run("qemu-img", "create", "-f", "qcow2", "-F", format, "-b", below, "-o",
            options[number % 4], path, str(size))  # fmt: skip
        cluster = 1 << 20 if number % 4 == 3 else 1 << 16
        writes = ["-c", f"write -c -P {10 + number} 0 {cluster}"] if number % 4 != 1 else []
        for _ in range(6):
            place = chance.randrange(size - 100_000)
            writes += ["-c", f"write -P {number} {place} {chance.randrange(1, 99_000)}"]
            place = place // 512 * 512
            writes += ["-c", f"write -z {chance.randrange(size // 512 - 99) * 512} 40k"]
        run("qemu-io", "-f", "qcow2", *writes, path)
        below, format = path, "qcow2"
    return below, raw_copy(below)


def test_chain_reads_as_qemu_reads_it(chain: tuple[Path, bytes]) -> None:
    path, expected = chain
    with Image(path, trust=True) as image:
        assert len(image.layers) == 8
        assert image.read(0, image.size) == expected
        _everywhere(image, expected)


@given(ranges=st.lists(st.tuples(st.integers(0, 5_200_000), st.integers(0, 300_000)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_ranges_of_a_chain(chain: tuple[Path, bytes], ranges: list[tuple[int, int]]) -> None:
    path, expected = chain
    with Image(path, trust=True) as image:
        for offset, size in ranges:
            assert image.read(offset, size) == expected[offset : offset + size]


def test_readv_reads_many_places_in_one_call(chain: tuple[Path, bytes]) -> None:
    path, expected = chain
    offsets = [random.Random(2).randrange(len(expected) - 5000) for _ in range(500)]
    rows = b"".join(expected[offset : offset + 5000] for offset in offsets)
    with Image(path, trust=True) as image:
        assert image.readv(offsets, 5000) == rows
        buffer = bytearray(len(rows))
        assert image.readv(array("Q", offsets), 5000, buffer) is buffer
        assert buffer == rows
        with pytest.raises(ValueError, match="not within the disk"):
            image.readv([image.size - 1], 2)
        with pytest.raises(ValueError, match="too small for 2 reads"):
            image.readv([0, 1], 2, bytearray(3))


def test_data_gives_all_that_is_not_zero(chain: tuple[Path, bytes]) -> None:
    path, expected = chain
    rebuilt = bytearray(len(expected))
    with Image(path, trust=True) as image:
        given = 0
        for offset, piece in image.data(100_000):
            assert 0 < len(piece) <= 100_000
            rebuilt[offset : offset + len(piece)] = piece
            given += len(piece)
    assert rebuilt == expected
    assert given < len(expected)


def test_file_object_reads_and_seeks(chain: tuple[Path, bytes]) -> None:
    path, expected = chain
    with Image(path, trust=True) as image, image.open() as file:
        assert file.read(10) == expected[:10]
        assert file.seek(-7, io.SEEK_END) == len(expected) - 7
        assert file.read() == expected[-7:]
        assert file.read(1) == b""
        assert file.seek(1000) == 1000
        assert file.seek(5, io.SEEK_CUR) == file.tell() == 1005
        with pytest.raises(ValueError, match="cannot seek to -1"):
            file.seek(-1)
        buffered = io.BufferedReader(image.open())
        assert buffered.read() == expected
        assert not file.writable()
        file.close()
        with pytest.raises(ValueError, match="closed"):
            file.read(1)


def test_negative_places_are_refused(chain: tuple[Path, bytes]) -> None:
    with Image(chain[0], trust=True) as image:
        for offset, size in (-1, 1), (0, -1):
            with pytest.raises(ValueError, match="must not be negative"):
                image.read(offset, size)


# -- Threads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["compression_type=zlib", "compression_type=zstd"])
def test_many_threads_read_one_image(folder: Path, options: str) -> None:
    path = folder / f"threads-{options}"
    run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", options, "-f", "raw",
        folder / "raw", path)  # fmt: skip
    expected = content()

    def read(seed: int) -> int:
        chance = random.Random(seed)
        for _ in range(150):
            offset, size = chance.randrange(SIZE), chance.choice([1, 4096, 70_000, 300_000])
            assert image.read(offset, size) == expected[offset : offset + size]
        return seed

    with Image(path) as image, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(16))) == list(range(16))


def test_closing_while_others_read_is_told(folder: Path) -> None:
    begun, ends = threading.Event(), []

    def read() -> None:
        try:
            while True:
                assert image.read(0, SIZE) == expected
                begun.set()
        except ValueError as error:
            ends.append(str(error))

    expected = content()
    image = Image(folder / "raw", "raw")
    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(20)
    image.close()
    reader.join(20)
    assert ends == ["the image is closed"]


# -- Damage ------------------------------------------------------------------------------------


def test_file_cut_while_it_is_read_is_told(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", "-f", "raw", folder / "raw", path)
    with Image(path) as image:
        image.read(0, 1)
        os.truncate(path, 400 * KIB)
        with pytest.raises(ImageError, match="is truncated") as caught:
            image.read(0, SIZE)
        assert caught.value.path == str(path)
        assert caught.value.offset is not None


@pytest.mark.parametrize("options", ["compat=0.10", "extended_l2=on", "data_file"])
def test_clusters_beyond_the_end_are_zeros_as_in_qemu(
    folder: Path, tmp_path: Path, options: str
) -> None:
    """What the check calls a corruption is read as QEMU reads it: whole or cut clusters."""
    path = short = tmp_path / "short.qcow2"
    if options == "data_file":
        short = tmp_path / "data"
        options = f"data_file={short}"
    run("qemu-img", "convert", "-O", "qcow2", "-f", "raw", "-o", options, folder / "raw", path)
    for size in 1_000_001, 400 * KIB:
        os.truncate(short, size)
        expected = raw_copy(path)
        with Image(path, trust=True) as image:
            assert image.read(0, SIZE) == expected
            assert image.hash() == hashlib.sha256(expected).hexdigest()
            if short == path:
                assert image.check().exit_code == 2


@pytest.mark.parametrize("options", ["compression_type=zlib", "compression_type=zstd"])
def test_damaged_block_is_told(folder: Path, tmp_path: Path, options: str) -> None:
    path = tmp_path / "damaged.qcow2"
    run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", options, "-f", "raw",
        folder / "raw", path)  # fmt: skip
    with Image(path) as image:
        first = next(one for one in image.extents() if one.compressed)
    with path.open("r+b") as file:
        file.seek(first.host)
        file.write(b"\xff" * 64)
    with Image(path) as image:
        for size in 1, 1 << 20:
            with pytest.raises(ImageError, match="packed block that cannot be unpacked") as caught:
                image.read(first.start, size)
            assert caught.value.offset == first.host
