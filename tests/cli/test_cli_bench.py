"""``pyvirt bench``: what it asks for, prints and keeps. Real runs are in tests/bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from click.testing import CliRunner, Result
from support.bench_results import results

from pyvirt import bench
from pyvirt.bench import Matrix, Progress, Results
from pyvirt.cli.bench.measure import _left
from pyvirt.cli.group import group
from pyvirt.cli.output import Output
from pyvirt.errors import SpecError

LABEL = "TCG: processors emulated, not KVM"


def run(*words: object) -> Result:
    """In this process, errors included."""
    result = CliRunner().invoke(group, ["bench", *map(str, words)], obj=Output(),
                                standalone_mode=False)  # fmt: skip
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Matrix]:
    """The matrices that were to be run; `results()` is what each run gives."""
    found: list[Matrix] = []

    def pretend(matrix: Matrix, **how: Any) -> Results:
        found.append(matrix)
        how["progress"](Progress(1, 4, "ide", 1.0, 3.0))
        results().save(how["path"])
        return results()

    monkeypatch.setattr(bench, "run", pretend)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return results().save(tmp_path / "a.json")


def devices(matrix: Matrix) -> list[str]:
    return list(dict.fromkeys(point.device for point in matrix.points))


def test_quick_measures_both_headlines(asked: list[Matrix]) -> None:
    said = run("all", "--quick", "--accel", "tcg")
    (matrix,) = asked
    assert devices(matrix) == ["ide", "virtio-blk", "e1000", "virtio-net"]
    assert [point.split("/")[0] for point, _ in matrix.pairs] == ["virtio-blk", "virtio-net"]
    assert matrix.rounds >= 5
    assert matrix.repeats == 0
    assert {point.place.accel for point in matrix.points} == {"tcg"}
    assert said.stdout.startswith(LABEL)
    (kept,) = Path().glob("pyvirt-bench-*.json")
    assert said.stderr == f"All of it is in {kept}.\n"
    assert Results.load(kept) == results()


def test_devices_workloads_and_what_is_behind_are_chosen(asked: list[Matrix]) -> None:
    run("disk", "--device", "nvme", "--device", "virtio-scsi", "--workload", "randread-4K-x2",
        "--baseline", "lsi", "--rounds", 3, "--format", "qcow2", "--cache", "none")  # fmt: skip
    (matrix,) = asked
    assert devices(matrix) == ["lsi", "nvme", "virtio-scsi"]
    assert {base.partition("/")[0] for _, base in matrix.pairs} == {"lsi"}
    (work,) = {point.workload for point in matrix.points}
    assert (work.rw, work.bs, work.iodepth, matrix.rounds) == ("randread", 4096, 2, 3)
    assert {(point.format, point.cache) for point in matrix.points} == {("qcow2", "none")}


def test_networks_are_chosen(asked: list[Matrix]) -> None:
    run("net", "--backend", "user", "--device", "vmxnet3", "--workload", "receive-udp-1448")
    run("net", "--full", "--backend", "user")
    assert devices(asked[0]) == ["vmxnet3"]
    assert asked[0].points[0].name == "vmxnet3/user/receive-udp-1448"
    assert "virtio-net-mq" not in devices(asked[1])


def test_an_interrupted_run_says_where_its_results_are(
    asked: list[Matrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = attrs.evolve(results(), meta={**results().meta, "cancelled": True})
    monkeypatch.setattr(bench, "run", lambda matrix, **how: told)
    said = run("disk", "--output", "mine.json", "--html", "mine.html")
    assert said.return_value == 130
    assert said.stderr == "Interrupted; what was measured is in mine.json.\n"
    assert LABEL in Path("mine.html").read_text()
    assert "The run was cancelled" in said.stdout


def test_a_run_without_any_figure_ends_with_1(
    asked: list[Matrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "run", lambda matrix, **how: Results())
    assert run("disk").return_value == 1


@pytest.mark.parametrize(
    ("words", "error", "reason"),
    [
        (["disk", "--device", "idee"], SpecError, "did you mean 'ide'?"),
        (["disk", "--workload", "write"], SpecError, "must be like randread-4K-x16"),
        (["net", "--backend", "carrier"], SpecError, "must be one of passt, stream, tap, user"),
        (["disk", "--quick", "--full"], click.UsageError, "Give --quick or --full."),
        (["disk", "-o", "there"], click.UsageError, "there exists already; --force overwrites it."),
        (["disk", "-o", "no/where"], click.UsageError, "Nothing can be written to no."),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    asked: list[Matrix], words: list[str], error: type[Exception], reason: str
) -> None:
    Path("there").touch()
    with pytest.raises(error) as caught:
        run(*words)
    assert reason in str(caught.value)
    assert asked == []


def test_results_are_shown_again(file: Path, tmp_path: Path) -> None:
    assert run("show", file).stdout == results().table() + "\n"
    run("show", file, "--svg", tmp_path / "a.svg", "--html", tmp_path / "a.html")
    assert (tmp_path / "a.svg").read_text() == results().svg()
    with pytest.raises(click.UsageError, match="has no 'speed', but throughput, accesses"):
        run("show", file, "--metric", "speed")


def test_results_for_programs(file: Path) -> None:
    told = json.loads(run("show", file, "--json").stdout)
    (disk, net) = told["ratios"]
    assert (disk["point"], disk["rounds"], disk["busy"]) == ("virtio-blk/write-1M-x4", 7, 1)
    assert disk["low"] < disk["median"] < disk["high"]
    assert net["baseline"] == "e1000/send-tcp"
    assert told["meta"]["accelerator"] == "tcg"
    assert told["failures"][0]["words"] == "last <words>"


def test_two_files_are_compared(file: Path, tmp_path: Path) -> None:
    other = results(qemu="9.0.0").save(tmp_path / "b.json")
    assert "no difference seen" in run("compare", file, other).stdout
    told = json.loads(run("compare", file, other, "--json").stdout)
    assert {one["verdict"] for one in told["changes"]} == {"no difference seen"}
    assert told["differences"] == ["qemu 7.2.22 before, 9.0.0 after"]


def test_what_is_left_is_said_as_people_do() -> None:
    assert [_left(seconds) for seconds in (5, 200, 9000)] == ["5 s", "3 min", "2.5 h"]
