"""qcow2 images that qemu-img makes, in every option and odd size: map, check, measure."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyvirt.image import Image

pytestmark = pytest.mark.skipif(
    not (shutil.which("qemu-img") and shutil.which("qemu-io")), reason="qemu-utils is missing"
)

OPTIONS = {
    "default": {},
    "small-clusters": {"cluster_size": "512"},
    "large-clusters": {"cluster_size": "2M"},
    "extended": {"extended_l2": "on"},
    "extended-16k": {"extended_l2": "on", "cluster_size": "16k"},
    "version-2": {"compat": "0.10"},
    "lazy": {"lazy_refcounts": "on"},
    "zstd": {"compression_type": "zstd"},
    "metadata": {"preallocation": "metadata"},
    "metadata-extended": {"preallocation": "metadata", "extended_l2": "on"},
    "falloc": {"preallocation": "falloc"},
    "full": {"preallocation": "full"},
    "data-file": {"data_file": "{folder}/data"},
    "raw-data-file": {"data_file": "{folder}/raw-data", "data_file_raw": "on"},
    **{f"refcount-{bits}": {"refcount_bits": str(bits)} for bits in (1, 2, 4, 8, 32, 64)},
}
SIZES = [512, 1000001, 3 << 20, 5000192]

Run = Callable[..., str]


def run(*words: Any) -> str:
    return subprocess.run(
        [*map(str, words)], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def create(path: Path, size: int, options: dict[str, str], backing: Path | None = None) -> Path:
    words = [f"{name}={value}".format(folder=path.parent) for name, value in options.items()]
    below = ["-b", backing, "-F", "qcow2"] if backing else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *below,
        *(["-o", ",".join(words)] if words else []), path, size)  # fmt: skip
    return path


def scribble(path: Path, size: int, seed: int, *, compressed: bool, times: int = 25) -> None:
    """Write, zero, discard and compress at random places."""
    chosen = random.Random(seed)
    acts = ["write -P 3", "write -P 4", "write -z", "write -z -u", "discard", "write"]
    commands = []
    for _ in range(times):
        at = chosen.randrange(max(1, size - 40000)) // 512 * 512
        length = min(chosen.randrange(512, 40000) // 512 * 512, max(512, size - at))
        act = chosen.choice([*acts, *(["write -c"] if compressed else [])])
        if act == "write -c":
            at, length = at // 65536 * 65536, 65536
        commands += ["-c", f"{act} {at} {length}"]
    # Some go beyond the end, which qemu-io refuses: that is fine, too.
    subprocess.run(["qemu-io", "-f", "qcow2", *commands, path], capture_output=True, timeout=60)


def same_map(path: Path) -> None:
    with Image(path, trust=path.parent) as image:  # What it reads, SEEK_DATA counts as data.
        image.layers  # noqa: B018
    theirs = run("qemu-img", "map", "--output=json", "-f", "qcow2", path)
    with Image(path, "qcow2", trust=path.parent) as image:
        assert image.extents(chain=True).json() == theirs


def theirs_checked(path: Path) -> dict[str, int]:
    said = subprocess.run(["qemu-img", "check", "--output=json", "-f", "qcow2", path],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    found: dict[str, int] = json.loads(said.stdout)
    return {"code": said.returncode, **found}


def same_check(path: Path) -> None:
    theirs = theirs_checked(path)
    with Image(path, "qcow2") as image:
        ours = image.check()
    pairs = {
        "code": ours.exit_code, "corruptions": ours.corruptions, "leaks": ours.leaks,
        "image-end-offset": ours.image_end_offset, "total-clusters": ours.total_clusters,
        "allocated-clusters": ours.allocated_clusters,
        "fragmented-clusters": ours.fragmented_clusters,
        "compressed-clusters": ours.compressed_clusters,
    }  # fmt: skip
    assert pairs == {name: theirs.get(name, 0) for name in pairs}


@pytest.fixture(scope="module", params=OPTIONS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with data, zeros, compressed clusters, and one over it; both were written to."""
    folder = tmp_path_factory.mktemp("image")
    options, number = OPTIONS[request.param], list(OPTIONS).index(request.param)
    size = SIZES[number % len(SIZES)]
    path = create(folder / "image.qcow2", size, options)
    scribble(path, size, number, compressed="data_file" not in options)
    top = create(folder / "top.qcow2", size + (0, 70000, 1 << 20)[number % 3], {}, path)
    scribble(top, size, number + 100, compressed=True, times=8)
    return path


def test_map(made: Path) -> None:
    same_map(made)


def test_map_of_a_chain(made: Path) -> None:
    same_map(made.parent / "top.qcow2")


def test_check(made: Path) -> None:
    same_check(made)


@pytest.mark.parametrize(
    "options",
    [{}, {"cluster_size": 512}, {"cluster_size": 2 << 20}, {"extended_l2": True},
     {"refcount_bits": 1}, {"compat": "0.10"}, {"preallocation": "full"}],
    ids=str,
)  # fmt: skip
def test_measure(made: Path, options: dict[str, Any]) -> None:
    top = made.parent / "top.qcow2"
    words = [f"{k}={'on' if v is True else v}" for k, v in options.items()]
    with Image(top, trust=made.parent) as image:
        image.layers  # noqa: B018
    theirs = json.loads(
        run("qemu-img", "measure", "--output=json", "-O", "qcow2", "-f", "qcow2",
            *(["-o", ",".join(words)] if words else []), top)
    )  # fmt: skip
    with Image(top, "qcow2", trust=made.parent) as image:
        ours = image.measure("qcow2", **options)
        raw = image.measure("raw")
    assert (ours.required, ours.fully_allocated) == (theirs["required"], theirs["fully-allocated"])
    assert ours.bitmaps == theirs.get("bitmaps")
    assert raw.required == image.size


def test_info(made: Path) -> None:
    theirs = json.loads(run("qemu-img", "info", "--output=json", "-f", "qcow2", made))
    data = theirs["format-specific"]["data"]
    with Image(made, "qcow2") as image:
        header = image.info.header
    assert (image.size + 511) // 512 * 512 == theirs["virtual-size"]
    assert header.cluster_size == theirs["cluster-size"]
    assert {2: "0.10", 3: "1.1"}[header.version] == data["compat"]
    assert header.refcount_bits == data["refcount-bits"]
    if header.version == 3:
        assert header.lazy_refcounts == data["lazy-refcounts"]
        assert header.extended == data["extended-l2"]
        assert header.compression == data["compression-type"]
        assert header.corrupt == data["corrupt"]
        assert header.data_file == data.get("data-file")
        assert header.raw_external == data.get("data-file-raw", False)


# -- Snapshots and bitmaps -----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["default", "extended", "small-clusters", "version-2"])
def snapshots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshots")
    path = create(folder / "image.qcow2", 3 << 20, OPTIONS[request.param])
    for number in range(3):
        scribble(path, 3 << 20, number, compressed=number == 1, times=5)
        run("qemu-img", "snapshot", "-c", f"number {number}", path)
        shutil.copy(path, folder / f"copy{number}.qcow2")
    return path


def test_snapshots_are_images_of_their_own(snapshots: Path) -> None:
    theirs = json.loads(run("qemu-img", "info", "--output=json", "-f", "qcow2", snapshots))
    with Image(snapshots, "qcow2") as image:
        found = image.info.snapshots
    assert [(one.id, one.name) for one in found] == [
        (one["id"], one["name"]) for one in theirs["snapshots"]
    ]
    for number in range(3):
        run("qemu-img", "snapshot", "-a", f"number {number}", snapshots)
        with (
            Image(snapshots, "qcow2", snapshot=f"number {number}") as then,
            Image(snapshots, "qcow2") as now,
        ):
            assert then.extents() == now.extents()
            assert len(now.diff(f"number {number}")) == 0


def test_check_counts_snapshots(snapshots: Path) -> None:
    same_check(snapshots)


def test_the_difference_of_snapshots_is_what_was_written(tmp_path: Path) -> None:
    path = create(tmp_path / "image.qcow2", 3 << 20, {})
    run("qemu-io", "-f", "qcow2", "-c", "write 0 1M", path)
    run("qemu-img", "snapshot", "-c", "before", path)
    run("qemu-io", "-f", "qcow2", "-c", "write 128k 64k", "-c", "write -z 512k 64k", path)
    with Image(path, "qcow2") as image:
        changed = [(one.start, one.length, one.zero) for one in image.diff("before")]
    assert changed == [(128 << 10, 64 << 10, False), (512 << 10, 64 << 10, True)]


def test_bitmaps_bit_by_bit(tmp_path: Path) -> None:
    path = create(tmp_path / "image.qcow2", (70 << 20) + 512, {})
    run("qemu-img", "bitmap", "--add", "--enable", "-g", "64k", path, "changes")
    run("qemu-img", "bitmap", "--add", "--disable", "-g", "512", path, "still")
    run("qemu-io", "-f", "qcow2", "-c", "write 65536 1", "-c", "write 70M 512", path)
    with Image(path, "qcow2") as image:
        changes, still = image.info.bitmaps
        bits = image.layer.bitmap("changes")  # type: ignore[attr-defined]
        none = image.layer.bitmap("still")  # type: ignore[attr-defined]
    assert (changes.name, changes.granularity, changes.flags) == ("changes", 65536, ("auto",))
    assert (still.granularity, still.consistent) == (512, True)
    found = [n for n in range(len(bits) * 8) if bits[n // 8] >> n % 8 & 1]
    assert found == [1, 1120]
    assert len(bits) == 141
    assert not any(none)
    same_check(path)
    measured = json.loads(run("qemu-img", "measure", "--output=json", "-O", "qcow2", path))
    with Image(path, "qcow2") as image:
        assert image.measure().bitmaps == measured["bitmaps"]


# -- Damaged on purpose ----------------------------------------------------------------------------


def damage(path: Path, offset: int, value: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(value)


def test_check_of_damaged_tables_is_that_of_qemu(snapshots: Path, tmp_path: Path) -> None:
    """Each table damaged in every way in which QEMU still finishes its check."""
    chosen, compared = random.Random(7), 0
    with Image(snapshots, "qcow2") as image:
        header = image.info.header
    content = snapshots.read_bytes()
    tables = _tables(content, header)
    for number in range(40):
        path = tmp_path / f"damaged{number}.qcow2"
        path.write_bytes(content)
        kind = chosen.choice(["l1", "l2", "l2", "block"])
        if kind == "block":
            damage(path, tables["block"][0] + chosen.randrange(64), bytes([chosen.randrange(256)]))
        else:
            at = chosen.choice(tables[kind])
            (old,) = struct.unpack_from(">Q", content, at)
            new = chosen.choice([
                0, old ^ 1 << 63, old ^ 1 << 62, old ^ 512, old + header.cluster_size,
                old ^ 1 << 40, old ^ 1 << 57, old ^ 1 << chosen.randrange(1, 64),
            ])  # fmt: skip
            damage(path, at, struct.pack(">Q", new & (1 << 64) - 1))
        if theirs_checked(path)["check-errors"] == 0:
            compared += 1
            same_check(path)
    assert compared > 30


def test_check_of_a_cut_image_is_that_of_qemu(snapshots: Path, tmp_path: Path) -> None:
    """Tables that the file lost are corruptions, and no failure of the check.

    Of a snapshot table that lost less than a cluster QEMU sees only what that makes leak.
    """
    content, path = snapshots.read_bytes(), tmp_path / "cut.qcow2"
    with Image(snapshots, "qcow2") as image:
        cluster = image.info.header.cluster_size
    step = max(cluster, len(content) // 20 // cluster * cluster)
    for size in (*range(104, len(content), step), *range(len(content) - 700, len(content), 100)):
        path.write_bytes(content[:size])
        theirs = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True)
        with Image(path, "qcow2") as image:
            result = image.check()
        known = theirs.returncode == 3 and "unreadable" in {one.fault for one in result.findings}
        assert result.exit_code == (2 if known else theirs.returncode), size


def _tables(content: bytes, header: Any) -> dict[str, list[int]]:
    def word(at: int) -> int:
        return int.from_bytes(content[at : at + 8], "big")

    l1 = [header.l1_table_offset + 8 * n for n in range(header.l1_size)]
    l2 = [word(at) & 0xFFFFFFFFFFFE00 for at in l1 if word(at)]
    step = 16 if header.extended else 8
    entries = [at + step * n for at in l2 for n in range(min(48, header.cluster_size // step))]
    return {"l1": l1, "l2": entries, "block": [word(header.refcount_table_offset)]}


def test_a_chain_of_300(tmp_path: Path) -> None:
    from pyvirt.errors import PyvirtError
    from pyvirt.image import Budget

    below: Path | None = None
    base = create(tmp_path / "0.qcow2", 1 << 20, {})
    for number in range(1, 300):
        path = tmp_path / f"{number}.qcow2"
        content = bytearray(base.read_bytes())
        name = (below or base).name.encode()
        struct.pack_into(">Q", content, 8, 1024)
        struct.pack_into(">I", content, 16, len(name))
        content[112:128] = struct.pack(">II8s", 0xE2792ACA, 5, b"qcow2")
        content[128:1024] = bytes(1024 - 128)
        content[1024 : 1024 + len(name)] = name
        path.write_bytes(content)
        below = path
    assert below is not None
    with Image(below, "qcow2", trust=tmp_path) as image, pytest.raises(PyvirtError):
        image.extents(chain=True)
    with Image(below, "qcow2", trust=tmp_path, budget=Budget(depth=300)) as image:
        (one,) = image.extents(chain=True)
    assert (one.depth, one.zero, one.length) == (299, True, 1 << 20)
