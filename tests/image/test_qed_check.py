"""The check of QED images against ``qemu-img check``, fault by fault and at random."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.formats import create, qemu_io

from pyvirt.errors import BudgetError
from pyvirt.image import BytesSource, Image
from pyvirt.image.budget import Budget
from pyvirt.image.qcow2.check import CheckResult

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-utils")

CLUSTER, TABLE_SIZE = 4096, 2
TABLE = CLUSTER * TABLE_SIZE
MIB = 1 << 20
#: Where QEMU puts the L1 table.
L1 = CLUSTER


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image with four L2 tables, some clusters of zeros, and all else in use."""
    path = tmp_path_factory.mktemp("qed") / "good.qed"
    create(path, "qed", 12 * MIB + 512, cluster_size=CLUSTER, table_size=TABLE_SIZE)
    writes = ["write -P 1 0 40k", "write -P 2 5M 16k", "write -P 3 1M 8k", "write -P 4 11M 4k"]
    qemu_io(path, "qed", *writes, "write -z 5M 8k", "write -P 5 12M 512")
    return path.read_bytes()


def entry(image: bytes, offset: int) -> int:
    value: int = struct.unpack_from("<Q", image, offset)[0]
    return value


def used(image: bytes, table: int) -> list[int]:
    """Places of the entries of a table that name something."""
    return [place for place in range(table, table + TABLE, 8) if entry(image, place) > 1]


def ours(path: Path) -> CheckResult:
    with Image(path, "qed") as image:
        return image.check()


def theirs(path: Path) -> tuple[int, dict[str, int]]:
    words = ["qemu-img", "check", "--output=json", "-f", "qed", str(path)]
    done = subprocess.run(words, capture_output=True, timeout=60)
    return done.returncode, json.loads(done.stdout)


def same(path: Path) -> CheckResult:
    """What we find, after QEMU found as much."""
    result, (code, said) = ours(path), theirs(path)
    assert said["check-errors"] == 0
    assert result.exit_code == code
    names = ("corruptions", "leaks", "allocated_clusters", "fragmented_clusters", "total_clusters")
    found = {name: said.get(name.replace("_", "-"), 0) for name in names}
    assert {name: getattr(result, name) for name in names} == found
    assert len(result.findings) + result.findings_lost <= result.corruptions + result.leaks
    return result


def test_a_good_image_is_good(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(good)
    result = same(path)
    assert (result.ok, result.findings, result.image_end_offset) == (True, [], len(good))
    assert result.allocated_clusters == len(good) // CLUSTER - 1 - 5 * TABLE_SIZE


Damage = Callable[[bytearray, int, int], int]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        pytest.param(lambda image, l2, data: data + 512, "misaligned", id="misaligned"),
        pytest.param(lambda image, l2, data: len(image), "outside the file", id="behind-the-end"),
        pytest.param(lambda image, l2, data: 1 << 63, "outside the file", id="far-behind"),
        pytest.param(lambda image, l2, data: L1, "names what is named already", id="the-l1-table"),
        pytest.param(lambda image, l2, data: l2, "names what is named already", id="a-table"),
    ],
)
@pytest.mark.parametrize("level", ["L1 table", "L2 table"])
def test_an_entry_that_is_wrong(
    good: bytes, tmp_path: Path, value: Damage, fault: str, level: str
) -> None:
    first = entry(good, used(good, L1)[0])
    table = L1 if level == "L1 table" else first
    place = used(good, table)[-1]
    image, path = bytearray(good), tmp_path / "image"
    found = value(image, first, entry(good, used(good, first)[0]))
    struct.pack_into("<Q", image, place, found)
    path.write_bytes(image)
    result = same(path)
    assert result.exit_code == 2
    [wrong] = [one for one in result.findings if one.table != "cluster"]
    assert (wrong.fault, wrong.table, wrong.offset, wrong.found) == (fault, level, place, found)
    assert str(wrong) == f"{level} at {place}: {fault}, found {found:#x}"


def test_the_last_cluster_of_the_file_is_no_table(good: bytes, tmp_path: Path) -> None:
    image, path = bytearray(good), tmp_path / "image"
    struct.pack_into("<Q", image, used(good, L1)[-1], len(good) - CLUSTER)
    path.write_bytes(image)
    assert same(path).findings[0].fault == "outside the file"


def test_clusters_that_nothing_names_are_leaks(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(good + bytes(2 * CLUSTER + 100))
    result = same(path)
    assert (result.exit_code, result.leaks) == (3, 2)
    assert list(map(str, result.findings)) == [
        f"cluster at {len(good)}: nothing names it",
        f"cluster at {len(good) + CLUSTER}: nothing names it",
    ]


def test_more_clusters_than_a_cluster_has_bytes_are_no_leaks(tmp_path: Path) -> None:
    path = tmp_path / "image"
    create(path, "qed", 40 * MIB, cluster_size=CLUSTER, table_size=TABLE_SIZE)
    qemu_io(path, "qed", "write -P 1 0 20M")
    result = ours(path)
    assert path.stat().st_size // CLUSTER > CLUSTER
    assert (result.ok, result.allocated_clusters) == (True, 20 * MIB // CLUSTER)
    code, said = theirs(path)
    # Where QEMU finds any, they are its own: nothing was lost in an image that it just wrote.
    assert (code, said.get("leaks", 0)) in ((0, 0), (3, 1))


def test_damage_at_random(good: bytes, tmp_path: Path) -> None:
    chance, path = random.Random(7), tmp_path / "image"
    tables = [L1, *(entry(good, place) for place in used(good, L1))]
    values = [0, 1, 512, CLUSTER, L1, *tables, 1 << 40, (1 << 64) - CLUSTER, (1 << 64) - 1]
    for _ in range(60):
        image = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            place = chance.choice(used(good, chance.choice(tables))) ^ chance.choice((0, 8))
            other = chance.randrange(len(good) // CLUSTER + 2) * CLUSTER
            struct.pack_into("<Q", image, place, chance.choice([*values, other]))
        path.write_bytes(image[: chance.choice([len(image)] * 3 + [len(image) - CLUSTER])])
        same(path)


def test_a_hole_of_an_exbibyte_ends_at_the_budget(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(good)
    os.truncate(path, 1 << 43)
    with pytest.raises(BudgetError, match="the check of"):
        ours(path)
    few = Budget(memory=10)
    with Image(BytesSource(good), "qed", budget=few) as image, pytest.raises(BudgetError):
        image.check()
