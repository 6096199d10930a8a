"""Comparing and hashing what guests read, against qemu-img compare and hashlib."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from pyvirt._native.content import differs, zeros
from pyvirt.errors import ImageError
from pyvirt.image import BytesSource, Image
from pyvirt.image.compare import suspects

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")

SIZE = 5 << 20
SPOTS = [0, 700_001, 2 << 20, SIZE - 1]


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def qemu_says_equal(a: Path, b: Path) -> bool:
    said = subprocess.run(["qemu-img", "compare", "-q", a, b], check=False)
    assert said.returncode in (0, 1)
    return said.returncode == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare")
    content = bytearray(SIZE)
    for start in range(0, SIZE, 1 << 20):
        content[start : start + 300_000] = random.Random(start).randbytes(300_000)
    (path / "a.raw").write_bytes(content)
    for spot in SPOTS:
        content[spot] ^= 0xFF
    (path / "b.raw").write_bytes(content)
    run("qemu-img", "convert", "-O", "qcow2", path / "a.raw", path / "a.qcow2")
    run("qemu-img", "convert", "-c", "-O", "qcow2", path / "a.raw", path / "packed.qcow2")
    run("qemu-img", "convert", "-O", "vdi", path / "b.raw", path / "b.vdi")
    return path


FORMATS = {".raw": "raw", ".qcow2": "qcow2", ".vdi": "vdi"}


def image(path: Path) -> Image:
    return Image(path, FORMATS[path.suffix], trust=True)


@pytest.mark.parametrize("a", ["a.raw", "a.qcow2", "packed.qcow2"])
@pytest.mark.parametrize("b", ["a.raw", "a.qcow2", "packed.qcow2", "b.raw", "b.vdi"])
def test_verdict_is_that_of_qemu_img(folder: Path, a: str, b: str) -> None:
    with image(folder / a) as one, image(folder / b) as other:
        found = one.compare(other)
        assert found.equal == found.identical == qemu_says_equal(folder / a, folder / b)
        assert found.first == (None if found.equal else SPOTS[0])
        assert found.differing is None


def test_all_differences_are_found(folder: Path) -> None:
    with image(folder / "packed.qcow2") as one, image(folder / "b.vdi") as other:
        found = one.compare(other, all=True)
    assert found.differing is not None
    assert [(one.start, one.length) for one in found.differing] == [
        (spot // 512 * 512, 512) for spot in SPOTS
    ]


def test_disk_that_goes_on_with_zeros_is_equal_but_not_identical(
    folder: Path, tmp_path: Path
) -> None:
    longer = tmp_path / "longer.qcow2"
    shutil.copy(folder / "a.qcow2", longer)
    run("qemu-img", "resize", longer, "+1M")
    with image(folder / "a.raw") as one, image(longer) as other:
        found = one.compare(other)
        assert (found.equal, found.identical) == (True, False)
        assert found.sizes == (SIZE, SIZE + (1 << 20))
    assert qemu_says_equal(folder / "a.raw", longer)
    run("qemu-io", "-f", "qcow2", "-c", f"write -P 1 {SIZE + 1000} 1", longer)
    with image(folder / "a.raw") as one, image(longer) as other:
        assert one.compare(other).first == other.compare(one).first == SIZE + 1000
    assert not qemu_says_equal(folder / "a.raw", longer)


def test_what_two_overlays_share_is_not_read(folder: Path, tmp_path: Path) -> None:
    overlays = [tmp_path / "x.qcow2", tmp_path / "y.qcow2"]
    for path, byte in zip(overlays, (1, 2), strict=True):
        run("qemu-img", "create", "-f", "qcow2", "-F", "qcow2", "-b", folder / "packed.qcow2", path)
        run("qemu-io", "-f", "qcow2", "-c", f"write -P {byte} 1M 64k", path)
    with image(overlays[0]) as one, image(overlays[1]) as other:
        assert [(e.start, e.length) for e in suspects(one, other)] == [(1 << 20, 64 << 10)]
        assert one.compare(other).first == 1 << 20
        assert one.compare(one).equal


def test_snapshots_of_one_image_are_compared(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    shutil.copy(folder / "a.qcow2", path)
    run("qemu-img", "snapshot", "-c", "old", path)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 3M 1k", path)
    with Image(path) as now, Image(path, snapshot="old") as old:
        assert len(suspects(now, old)) == 1
        assert now.compare(old).first == 3 << 20
        with image(folder / "a.raw") as a:
            assert old.compare(a).identical


def test_progress_ends_at_the_total_and_can_cancel(folder: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stop

    steps: list[tuple[int, int]] = []
    with image(folder / "a.raw") as one, image(folder / "packed.qcow2") as other:
        one.compare(other, progress=lambda *step: steps.append(step))
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1] > 0
        for work in (lambda: one.compare(other, progress=stop), lambda: one.hash(progress=stop)):
            with pytest.raises(Stop):
                work()


@pytest.mark.parametrize("name", ["a.raw", "a.qcow2", "packed.qcow2", "b.vdi"])
@pytest.mark.parametrize("algorithm", ["sha256", "md5", "blake2b"])
def test_hash_is_that_of_the_raw_content(folder: Path, name: str, algorithm: str) -> None:
    content = (folder / f"{'b' if name == 'b.vdi' else 'a'}.raw").read_bytes()
    with image(folder / name) as one:
        assert one.hash(algorithm) == hashlib.new(algorithm, content).hexdigest()


@pytest.mark.parametrize("block", [4096, 65536, 100_000, SIZE, 2 * SIZE])
def test_hash_of_blocks_is_the_hash_of_their_hashes(folder: Path, block: int) -> None:
    content = (folder / "a.raw").read_bytes()
    blocks = [content[at : at + block] for at in range(0, SIZE, block)]
    expected = hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in blocks))
    for name in "a.raw", "packed.qcow2":
        with image(folder / name) as one:
            assert one.hash(block=block) == expected.hexdigest()


def test_file_written_while_it_is_hashed_is_told(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "live.raw"
    shutil.copy(folder / "a.raw", path)

    def write(done: int, total: int) -> None:
        with path.open("r+b") as file:
            file.write(b"new")
        os.utime(path, ns=(1, 1))

    with image(path) as one, pytest.raises(ImageError, match="changed while it was read"):
        one.hash(progress=write)


def test_sources_in_memory_are_compared() -> None:
    with (
        Image(BytesSource(b"a" * 1024), "raw") as one,
        Image(BytesSource(b"a" * 600 + b"b" + b"a" * 423), "raw") as other,
    ):
        assert one.compare(other).first == 600


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 10_000])
def test_runs_and_differences_of_buffers(size: int) -> None:
    assert zeros(bytes(size)) == (size > 0, size)
    assert differs(bytes(size), bytes(size)) == size
    for at in {0, size // 2, size - 1} - {size, -1}:
        data = bytearray(size)
        data[at] = 1
        assert differs(data, bytes(size)) == at
        assert zeros(data)[0] == (at >= 4096)
