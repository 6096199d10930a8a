"""A trace as a sequence: order, parts, merging, files, figures, frames of data."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.traces import DISK, MS, RX, SCSI, TX, Made, blk, flush, read, trace, write

from pyvirt.errors import SpecError, TraceError, UnsupportedError
from pyvirt.virtio.records import NAMES, RECORD, Flag, Lost, TracedQueue
from pyvirt.virtio.requests import BlkRequest, NetFrame
from pyvirt.virtio.statistics import distribution
from pyvirt.virtio.trace import Trace
from pyvirt.virtio.tracefile import read as read_file

OTHER = TracedQueue("disk1", "virtio-blk", "/machine/peripheral/disk1", 3, 1 << 32)


def small(**more: Any) -> Trace:
    """Four requests to one disk in 10 ms, of which one is in flight at the end."""
    return trace(
        [
            write(8, 4096, 1003 * MS, 2 * MS, order=2, depth=2),
            read(0, 512, 1001 * MS, 1 * MS, order=0),
            flush(1008 * MS, 0, order=3),
            read(16, 8192, 1003 * MS, 4 * MS, order=1),
        ],
        [DISK],
        started=1000 * MS,
        ended=1010 * MS,
        realtime=1_700_000_000 * 10**9,
        **more,
    )


def test_requests_come_in_the_order_in_which_they_were_made() -> None:
    found = small()
    assert len(found) == 4
    assert [one.offset for one in found] == [0, 8192, 4096, None]
    assert [one.operation for one in found] == ["read", "read", "write", "flush"]
    assert found.columns["order"].tolist() == [0, 1, 2, 3]


def test_a_request_has_its_times() -> None:
    one = small()[2]
    assert isinstance(one, BlkRequest)
    assert (one.made, one.done, one.latency, one.depth) == (0.003, 0.005, 0.002, 2)
    assert (one.device, one.kind, one.queue) == ("disk0", "virtio-blk", DISK)
    assert repr(one) == "<BlkRequest disk0 request0: write 4 KiB at 4096, ok, 2 ms>"


def test_a_request_in_flight_has_no_end() -> None:
    one = small()[-1]
    assert (one.made, one.done, one.latency, one.status) == (0.008, None, None, None)
    assert repr(one) == "<BlkRequest disk0 request0: flush, in flight>"


def test_a_latency_that_was_not_seen_is_not_told() -> None:
    late = read(0, 512, 5, 1, flags=Flag.COMPLETED_FIRST_SEEN)
    found = trace([late, read(0, 512, 9, 3)], [DISK])
    assert (found[0].latency, found[0].done) == (None, 6e-9)
    assert found.statistics().total.latency.count == 1


@pytest.mark.parametrize("flag", [Flag.CHAIN_UNCERTAIN, Flag.RESULT_UNCERTAIN])
def test_what_is_uncertain_says_so(flag: Flag) -> None:
    found = trace([read(0, 512, 5, 1, flags=flag)], [DISK])
    assert found[0].uncertain
    assert str(found[0]).endswith(", uncertain")


def test_a_slice_is_a_trace() -> None:
    found = small()
    assert isinstance(found[1:3], Trace)
    assert [one.offset for one in found[1:3]] == [8192, 4096]
    assert found[:] == found
    assert found[::-1] == found, "requests stay in order"
    with pytest.raises(IndexError):
        found[4]


def mixed() -> Trace:
    return trace(
        [
            Made(0, 10 * MS, 11 * MS, blk(0, 1), writable_length=513),
            Made(1, 20 * MS, 21 * MS, blk(1, 2), readable_length=528, writable_length=1),
            Made(2, 30 * MS, 31 * MS, bytes(12 + 60)),
            Made(1, 40 * MS, 41 * MS, blk(4, 0), writable_length=1),
        ],
        [DISK, OTHER, TX],
        ended=50 * MS,
        lost=Lost(1, 2, 3),
    )


@pytest.mark.parametrize(
    ("wanted", "places", "queues"),
    [
        ({"device": "disk1"}, [1, 3], [OTHER]),
        ({"queue": "tx0"}, [2], [TX]),
        ({"queue": 3}, [1, 3], [OTHER]),
        ({"kind": "virtio-blk"}, [0, 1, 3], [DISK, OTHER]),
        ({"since": 0.02, "until": 0.04}, [1, 2], [DISK, OTHER, TX]),
        ({"device": "nobody"}, [], []),
        ({}, [0, 1, 2, 3], [DISK, OTHER, TX]),
    ],
)
def test_a_part_of_a_trace(
    wanted: dict[str, Any], places: list[int], queues: list[TracedQueue]
) -> None:
    found = mixed()
    part = found.filter(**wanted)
    assert [repr(one) for one in part] == [repr(found[place]) for place in places]
    assert (list(part.queues), part.lost) == (queues, found.lost)


def test_columns_are_views() -> None:
    found = small()
    assert list(found.columns) == list(NAMES)
    rows = [RECORD.unpack_from(found.records, at * RECORD.size) for at in range(len(found))]
    for name, column in zip(NAMES, zip(*rows, strict=True), strict=True):
        assert tuple(found.columns[name].tolist()) == column
        assert found.columns[name].obj is found.records.obj


def test_columns_are_arrays_without_a_copy() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.asarray(small().columns["made"])
    assert array.dtype == numpy.uint64
    assert (array.tolist(), array.strides) == (small().columns["made"].tolist(), (64,))


@pytest.mark.parametrize(
    ("records", "value", "reason"),
    [
        (bytes(63), 63, "must be whole records of 64 bytes"),
        (RECORD.pack(*[0] * 9, 2, *[0] * 5), 2, "must name one of 1 queues"),
        (RECORD.pack(1 << 63, *[0] * 14), 1 << 63, "must have times before the year 2262"),
        (RECORD.pack(0, 0, 0, 8, 9, 9, 0, 9, 9, *[0] * 6), 26, "must lie in 20 bytes of payload"),
    ],
)
def test_records_that_do_not_fit_are_refused(records: bytes, value: int, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        Trace(records, bytes(20), [DISK])
    assert (caught.value.field, caught.value.value, caught.value.reason) == (
        "records", value, reason,
    )  # fmt: skip


def test_what_was_lost_is_always_shown() -> None:
    assert repr(mixed()) == (
        "<Trace: 4 requests of disk0, disk1, net0 in 50 ms, "
        "1 requests missed, 2 uncertain, 3 dropped>"
    )
    assert "nothing lost" in repr(small())
    for shown in (repr(mixed().statistics()), str(mixed().statistics()), mixed()._repr_html_()):
        assert "1 requests missed, 2 uncertain, 3 dropped" in shown


# Merging


def test_traces_of_one_clock_are_merged() -> None:
    both = small() + mixed()
    assert len(both) == 8
    assert both.queues == (DISK, OTHER, TX)
    assert sorted(map(str, both)) == sorted([*map(str, small()), *map(str, mixed())])
    assert both.columns["made"].tolist() == sorted(both.columns["made"])


def test_lost_and_times_are_added_up() -> None:
    first, second = small(lost=Lost(1, 1, 1)), small(lost=Lost(0, 2, 5))
    both = Trace.merge(first, second)
    assert (both.lost, both.started, both.ended) == (Lost(1, 3, 6), 1000 * MS, 1010 * MS)
    assert Trace.merge() == trace([], [])


def test_traces_of_two_hosts_are_brought_to_one_clock() -> None:
    here = trace([read(1, 512, 5 * MS, MS)], [DISK], realtime=10**12, ended=9 * MS)
    there = trace([read(2, 512, 7000 * MS, MS), flush(8000 * MS, 0)], [OTHER],
                  realtime=10**12 - 7000 * MS, started=6990 * MS, ended=8100 * MS)  # fmt: skip
    both = here + there
    assert both.columns["made"].tolist() == [7000 * MS, 7005 * MS, 8000 * MS]
    assert both.columns["done"].tolist() == [7001 * MS, 7006 * MS, 0]


def test_clocks_that_were_adjusted_are_one() -> None:
    here = trace([read(1, 512, 5 * MS, MS)], [DISK], realtime=10**12)
    there = trace([read(2, 512, 4 * MS, MS)], [DISK], realtime=10**12 + 40 * MS)
    assert (here + there).columns["made"].tolist() == [4 * MS, 5 * MS]


# Files


def test_a_saved_trace_is_the_same_trace(tmp_path: Path) -> None:
    for number, made in enumerate((small(), mixed(), trace([], []))):
        file = tmp_path / f"{number}.trace"
        made.save(file)
        assert Trace.load(file) == made
        assert repr(Trace.load(str(file))) == repr(made)


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    mixed().save(tmp_path / "a.trace")
    data = (tmp_path / "a.trace").read_bytes()
    for size in range(len(data)):
        with pytest.raises(TraceError):
            read_file(data[:size], "a.trace")


def test_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.trace"
    mixed().save(file)
    data = file.read_bytes()
    for change, reason, offset in (
        (b"PK" + data[2:], "is no trace of pyvirt", 0),
        (data[:8] + b"\2" + data[9:], "has version 2, known is 1", 8),
        (data + b"\0", f"has {len(data) + 1} bytes instead of {len(data)}", len(data) + 1),
        (data.replace(b'"queues"', b'"Queues"'), "does not say what was traced", 32),
        (data.replace(b'"index": 0', b'"index":-1'), "does not say what was traced", 32),
    ):
        file.write_bytes(change)
        with pytest.raises(TraceError) as caught:
            Trace.load(file)
        assert (caught.value.reason, caught.value.offset) == (reason, offset)
        assert str(caught.value) == f"{file} {reason}, at byte {offset}"


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=5))
def test_a_damaged_file_is_a_trace_or_an_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(DATA)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        found = read_file(bytes(data), "a.trace")
    except TraceError:
        return
    assert all(map(repr, found))
    assert found.statistics()
    assert found.svg()
    assert found.pcapng(io.BytesIO()) <= len(found)
    assert found.iolog(io.BytesIO(), name="disk") >= 0


def _saved() -> bytes:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        mixed().save(file.name)
        return Path(file.name).read_bytes()


DATA = _saved()


# Figures


def test_statistics_of_a_small_trace() -> None:
    found = small().statistics()
    disk = found["disk0 request0"]
    assert (disk.requests, disk.done, disk.in_flight) == (4, 3, 1)
    assert (disk.bytes, disk.seconds) == (512 + 8192 + 4096, 0.01)
    assert disk.requests_per_second == pytest.approx(300)
    assert disk.bytes_per_second == pytest.approx(1_280_000)
    assert (disk.latency.smallest, disk.latency.largest) == (0.001, pytest.approx(0.004))
    assert disk.latency.percentile(50.0) == pytest.approx(0.002)
    assert [(one.low, one.count) for one in disk.depth.buckets] == [(1, 3), (2, 1)]
    assert found.total.bytes == disk.bytes
    assert str(found).splitlines() == [
        "queue           requests   /s     bytes   bytes/s  depth p50  max  latency p50   p99"
        "   max  in flight",
        "disk0 request0         4  300  12.5 KiB  1.22 MiB          1    2         2 ms  4 ms"
        "  4 ms          1",
        "all                    4  300  12.5 KiB  1.22 MiB          1    2         2 ms  4 ms"
        "  4 ms          1",
        "10 ms, nothing lost",
    ]


def test_headers_are_no_data() -> None:
    frames = [
        Made(0, 1, 2, bytes(12 + 60)),
        Made(1, 3, 4, b"", bytes(12 + 90), writable_length=2048, written=12 + 90),
        Made(1, 5, 0, b"", writable_length=2048),
    ]
    found = trace(frames, [TX, RX], ended=10).statistics()
    assert (found["net0 tx0"].bytes, found["net0 rx0"].bytes) == (60, 90)


def test_data_that_qemu_counts_twice_counts_once() -> None:
    request = Made(0, 1, 2, bytes(51), readable_length=51 + 4096, writable_length=108,
                   written=108 + 4096)  # fmt: skip
    assert trace([request], [SCSI], ended=10).statistics().total.bytes == 4096


@given(st.lists(st.integers(0, 1 << 40), min_size=1), st.booleans())
def test_percentiles_are_the_nearest_ranks(values: list[int], exact: bool) -> None:
    found = distribution(values, exact=exact)
    ordered = sorted(values)
    for percent, value in found.percentiles:
        assert value == ordered[max(1, math.ceil(len(ordered) * percent / 100 - 1e-9)) - 1]
    assert sum(bucket.count for bucket in found.buckets) == found.count == len(values)
    for bucket in found.buckets:
        inside = [v for v in values if bucket.low <= v and (v < bucket.high or v == bucket.low)]
        assert len(inside) == bucket.count
    assert (found.smallest, found.largest) == (ordered[0], ordered[-1])


REQUESTS = st.lists(
    st.builds(
        lambda queue, made, took, size, depth: Made(
            queue, made, made + took if took else 0, blk(0, size), writable_length=size * 512 + 1,
            depth=depth,
        ),
        st.integers(0, 1), st.integers(1, 10**9), st.integers(0, 10**7), st.integers(1, 8),
        st.integers(1, 64),
    )
)  # fmt: skip


@given(REQUESTS)
def test_statistics_are_those_of_the_requests(requests: list[Made]) -> None:
    found = trace(requests, [DISK, OTHER], ended=2 * 10**9)
    for statistics, queue in zip(found.statistics().queues, found.queues, strict=True):
        ones = [one for one in found if one.queue == queue]
        done = [one for one in ones if one.done is not None]
        assert (statistics.requests, statistics.done) == (len(ones), len(done))
        assert statistics.bytes == sum(one.length for one in done)
        assert statistics.requests_per_second == len(done) / 2
        assert statistics.latency.largest == pytest.approx(
            max((one.latency or 0 for one in done), default=0)
        )
        assert statistics.depth.largest == max((one.depth or 0 for one in ones), default=0)


@given(REQUESTS)
def test_what_is_saved_and_merged_stays(requests: list[Made]) -> None:
    found = trace(requests, [DISK, OTHER], ended=2 * 10**9)
    halves = found[: len(found) // 2] + found[len(found) // 2 :]
    assert sorted(map(repr, halves)) == sorted(map(repr, found))
    parts = Trace.merge(found.filter(device="disk0"), found.filter(device="disk1"))
    assert sorted(map(repr, parts)) == sorted(map(repr, found))


# Frames larger than a receive buffer


def received(order: int, data: bytes, buffers: int | None, done: int = 50, **more: Any) -> Made:
    head = b"" if buffers is None else bytes(10) + buffers.to_bytes(2, "little")
    return Made(0, 10 + order, done, b"", head + data, order=order, writable_length=1500,
                written=len(head + data), **more)  # fmt: skip


def test_a_frame_goes_on_in_the_next_buffers() -> None:
    found = trace(
        [
            received(0, b"a" * 60, 1), received(1, b"b" * 1488, 3), received(2, b"c" * 1500, None),
            received(3, b"d" * 100, None), received(4, b"e" * 60, 1),
        ],
        [RX],
    )  # fmt: skip
    assert found.merged == {1: (2, 3)}
    assert [one.length for one in found] == [60, 1488, 1500, 100, 60]
    frames = [one for one in found if isinstance(one, NetFrame)]
    assert [one.continued for one in frames] == [False, False, True, True, False]
    assert "more of the frame before" in str(found[2])
    assert found.statistics().total.bytes == 60 + 1488 + 1500 + 100 + 60


def test_a_buffer_that_was_missed_ends_a_frame() -> None:
    found = trace(
        [received(1, b"b" * 1488, 3), received(2, b"c" * 1500, None), received(4, b"e" * 60, 1)],
        [RX],
    )
    assert found.merged == {0: (1,)}
    last = found[2]
    assert isinstance(last, NetFrame)
    assert last.header


# Frames of data


def test_a_frame_of_polars() -> None:
    pytest.importorskip("polars")
    frame = small(lost=Lost()).to_polars()
    assert frame.height == 4
    assert frame["operation"].to_list() == ["read", "read", "write", "flush"]
    assert frame["offset"].to_list() == [0, 8192, 4096, None]
    assert frame["latency"].to_list() == [0.001, 0.004, 0.002, None]
    assert str(frame["made"].dtype) == "Datetime(time_unit='ns', time_zone='UTC')"
    assert frame["made"].dt.year().to_list() == [2023] * 4
    assert frame["done"].null_count() == 1
    assert trace([], []).to_polars().columns == frame.columns


def test_a_frame_of_pandas() -> None:
    pytest.importorskip("pandas")
    frame = small().to_pandas()
    assert frame["operation"].tolist() == ["read", "read", "write", "flush"]
    assert frame["offset"].dropna().tolist() == [0, 8192, 4096]
    assert str(frame["made"].dtype) == "datetime64[ns, UTC]"
    assert (frame["made"].dt.year.tolist(), frame["done"].isna().sum()) == ([2023] * 4, 1)
    assert list(trace([], []).to_pandas().columns) == list(frame.columns)


@pytest.mark.parametrize(
    ("name", "method"), [("polars", "to_polars"), ("pandas", "to_pandas"), ("cairosvg", "png")]
)
def test_a_package_that_is_missing_is_named(
    name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedError) as caught:
        getattr(small(), method)()
    assert str(caught.value) == f"{name} is not available in this Python; pip install {name}"
    assert caught.value.what == name
