"""One short real run: known counts, a guest that dies, a point that cannot be, a cancel."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pyvirt import bench
from pyvirt.bench import DiskPoint, Fio, Iperf, Matrix, NetPoint, Progress, Results, RoundTrip
from pyvirt.errors import DownloadError, UnsupportedError
from pyvirt.running.guest import build

SMALL = Fio(rw="write", bs="4K", runtime=0.2, ramp=0)
PANIC = 'sh -c "echo c > /proc/sysrq-trigger"'
DIES = Fio(job=f"[a]\nrw=read\nsize=1m\nexec_prerun={PANIC}\n", name="dies")
COUNTED = ("ide", "nvme", "virtio-blk")

pytestmark = pytest.mark.timeout(900)  # two boots and twenty runs of fio, on a busy host

POINTS = [
    *(DiskPoint(device, SMALL, backing="null") for device in COUNTED),
    NetPoint("virtio-net", Iperf("send"), backend="user"),
    NetPoint("virtio-net", RoundTrip(runtime=0.2), backend="user"),
    DiskPoint("nvme", SMALL, properties={"no-such": 1}, label="cannot be"),
    DiskPoint("virtio-blk", DIES, label="dies"),
    DiskPoint("virtio-blk", Fio(runtime=0.2), size="32M", format="qcow2", label="after it"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What a run of all `POINTS` gave, which was cancelled at its very last visit."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs qemu-system-x86_64")
    try:
        build(bench.run.__globals__["GUEST"])
    except (DownloadError, UnsupportedError) as error:
        pytest.skip(f"the guest cannot be had: {error}")
    told: list[Progress] = []
    path = tmp_path_factory.mktemp("bench") / "results.json"
    matrix = Matrix(POINTS, rounds=1, warm_up=0, repeats=0, limit=60)
    found = bench.run(
        matrix,
        path=path,
        progress=told.append,
        cancel=lambda: told[-1].done == told[-1].total - 2,
    )
    assert Results.load(path) == found
    assert [one.done for one in told] == sorted(one.done for one in told)
    return found


def figure(results: Results, device: str, metric: str) -> float:
    name = f"{device}/{SMALL.label}/null"
    (value,) = (row.value for row in results.rows if (row.point, row.metric) == (name, metric))
    return value


@pytest.mark.parametrize(
    ("device", "accesses"), [("ide", 26), ("nvme", 2), ("virtio-blk", 1)]
)
def test_accesses_to_a_device_are_counted_exactly(
    results: Results, device: str, accesses: int
) -> None:
    assert figure(results, device, "accesses-per-request") == pytest.approx(accesses, rel=0.02)
    assert figure(results, device, "accesses-per-MiB") == pytest.approx(256 * accesses, rel=0.02)
    assert figure(results, device, "interrupts-per-request") == pytest.approx(1, rel=0.05)


def test_only_virtio_is_notified(results: Results) -> None:
    assert figure(results, "ide", "notifications-per-request") == 0
    assert figure(results, "virtio-blk", "notifications-per-request") == pytest.approx(1, rel=0.02)


def test_rings_tell_of_sizes_and_depths(results: Results) -> None:
    assert figure(results, "virtio-blk", "request-size") == pytest.approx(4096, rel=0.1)
    assert figure(results, "virtio-blk", "queue-depth") == 1


def test_every_point_gave_its_figures(results: Results) -> None:
    for device in COUNTED:
        assert figure(results, device, "throughput") > 0
        assert figure(results, device, "latency-p99") > 0
    net = {row.metric: row.value for row in results.rows if row.device == "virtio-net"}
    assert net["throughput"] > 0
    assert 0 < net["latency-p50"] <= net["latency-p99"]


def test_a_guest_that_dies_is_told_of_and_the_rest_goes_on(results: Results) -> None:
    (failure,) = (one for one in results.failures if one.point == "dies")
    assert failure.reason
    assert [row.metric for row in results.rows if row.point == "after it"][:1] == ["throughput"]


def test_a_point_that_cannot_be_is_told_of_with_the_reason(results: Results) -> None:
    (failure,) = (one for one in results.failures if one.point == "cannot be")
    assert "no-such" in failure.reason


def test_there_are_no_other_failures(results: Results) -> None:
    reasons = {one.point: one.reason for one in results.failures}
    assert set(reasons) == {"dies", "cannot be"}, reasons


def test_a_cancelled_run_says_so_and_keeps_what_it_has(results: Results) -> None:
    assert results.meta["cancelled"] is True
    assert len({row.point for row in results.rows}) == len(POINTS) - 2


def test_where_the_figures_come_from_is_told(results: Results) -> None:
    meta = results.meta
    assert meta["accelerator"] in ("kvm", "tcg")
    assert meta["accelerator reason"]
    assert meta["fio"].startswith("fio-")
    assert meta["host"]["cpus"] >= 1
    (command,) = meta["guests"].values()
    assert Path(command[0]).name.startswith("qemu-system")
    assert "nvme" in " ".join(meta["plugged"][f"nvme/{SMALL.label}/null"])
    assert set(meta["conditions"]) == {row.point for row in results.rows}
    assert all(row.options["device"] == row.device for row in results.rows)


def test_nothing_is_left_behind(results: Results) -> None:
    (command,) = results.meta["guests"].values()
    made = [command[command.index("-D") + 1]]
    made += re.findall(r'"filename":"([^"]+)"', " ".join(results.meta["plugged"]["after it"]))
    assert len(made) == 2
    assert not [path for path in made if Path(path).parent.exists()]
