"""Points and matrices as values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest

from pyvirt.bench import DiskPoint, Fio, Matrix, NetPoint, Place, disk, net
from pyvirt.disk import Null
from pyvirt.errors import SpecError
from pyvirt.nic import Tap, User

ANY: Any = object()


def test_every_device_of_the_table_can_be_described() -> None:
    for device in disk.MODELS:
        assert DiskPoint(device).disk("a.raw", "s1").bus == disk.MODELS[device].bus
    for card in net.CARDS:
        assert NetPoint(card).nic(Tap(fds=tuple(range(3, 3 + NetPoint(card).queues)))).model


def test_names_tell_points_apart() -> None:
    assert DiskPoint("ide", disk.SEQUENTIAL).name == "ide/write-1M-x4"
    point = DiskPoint("nvme", backing="file", format="qcow2", cache="none", aio="native")
    assert point.name == "nvme/write-4K-x1/file/qcow2/none/native"
    assert NetPoint("virtio-net", vhost=True).name == "virtio-net/tap-vhost/send-tcp"
    assert DiskPoint("ide", label="mine").name == "mine"


def test_a_null_disk_has_no_data() -> None:
    assert isinstance(DiskPoint("ide", backing="null").disk("").file, Null)


def test_options_are_plain_and_whole() -> None:
    options = DiskPoint("ide", size="1G").options
    assert (options["device"], options["size"], options["place"]) == (
        "ide",
        1 << 30,
        "pc, 1 vCPU, 768M, auto",
    )
    assert set(options) == {field.name for field in attrs.fields(DiskPoint)}


@pytest.mark.parametrize(
    ("make", "field", "part"),
    [
        pytest.param(
            lambda: DiskPoint("virtio-blok"), "device", "did you mean 'virtio-blk'?", id="disk"
        ),
        pytest.param(lambda: NetPoint("e1000f"), "device", "did you mean 'e1000", id="card"),
        pytest.param(
            lambda: NetPoint("e1000", backend="taps"), "backend", "did you mean 'tap'?", id="end"
        ),
        pytest.param(lambda: DiskPoint("ide", ANY), "workload", "must be a Fio", id="fio"),
        pytest.param(lambda: NetPoint("e1000", ANY), "workload", "must be an Iperf", id="iperf"),
        pytest.param(
            lambda: DiskPoint("ide", place=Place(machine="q35")), "device", "q35", id="machine"
        ),
        pytest.param(
            lambda: DiskPoint("ide", backing="null", format="qcow2"), "backing", "null", id="null"
        ),
        pytest.param(
            lambda: DiskPoint("nvme", aio="native"), "aio", "cache", id="what-disks-refuse"
        ),
        pytest.param(
            lambda: NetPoint("e1000", vhost=True), "vhost", "virtio-net on a tap", id="vhost"
        ),
        pytest.param(
            lambda: NetPoint("virtio-net-mq", backend="user"), "backend", "must be tap", id="queues"
        ),
        pytest.param(lambda: Matrix([]), "points", "must not be empty", id="no-points"),
        pytest.param(
            lambda: Matrix([DiskPoint("ide"), DiskPoint("ide")]), "points", "label", id="twice"
        ),
        pytest.param(
            lambda: Matrix([DiskPoint("ide")], [("ide/write-4K-x1", "id")]),
            "pairs[0]",
            "must be one of ide/write-4K-x1",
            id="pair",
        ),
        pytest.param(
            lambda: disk.matrix(["ide"], [Fio()], baseline="nvme"),
            "baseline",
            "must be one of ide",
            id="baseline",
        ),
    ],
)
def test_what_cannot_be_says_why(make: Any, field: str, part: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.field == field
    assert part in str(caught.value)


def test_each_round_has_all_points_and_no_point_is_favoured() -> None:
    matrix = disk.matrix(["ide", "nvme", "virtio-blk"], [Fio()])
    turns: Counter[tuple[str, int]] = Counter()
    for round in range(6):
        order = list(matrix.order(round))
        assert sorted(p.name for _, p in order) == sorted(p.name for p in matrix.points)
        turns.update((point.device, turn) for turn, point in order)
    assert set(turns.values()) == {2}


def test_a_pair_takes_turns_in_going_first() -> None:
    firsts = [next(disk.headline().order(round))[1].device for round in range(8)]
    assert Counter(firsts) == {"ide": 4, "virtio-blk": 4}


def test_a_matrix_pairs_each_device_with_its_baseline() -> None:
    made = disk.matrix(["ide", "nvme"], [Fio(), Fio(rw="read")], baseline="ide")
    assert made.pairs == (
        ("nvme/write-4K-x1", "ide/write-4K-x1"),
        ("nvme/read-4K-x1", "ide/read-4K-x1"),
    )


def test_matrices_add_up() -> None:
    both = disk.quick() + net.quick()
    assert len(both.points) == 4
    assert both.pairs == disk.quick().pairs + net.quick().pairs


def test_the_whole_matrices_can_be_described() -> None:
    assert len(disk.full().points) == 12 * 8
    assert {point.backend for point in net.full(backend="user").points} == {"user"}


def test_one_card_goes_on_any_back_end() -> None:
    for backend in (User(), Tap(fds=(9,)), None):
        assert NetPoint("virtio-net").nic(backend).backend == backend
