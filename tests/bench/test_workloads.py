"""Workloads as values: their labels, their words, and what their programs report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyvirt.bench import Fio, Iperf, RoundTrip, fio, iperf
from pyvirt.bench.figure import Figure
from pyvirt.errors import GuestError, SpecError


def side(ios: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "total_ios": ios,
        "io_bytes": ios * 4096,
        "bw_bytes": ios * 4096,
        "iops": float(ios),
        "lat_ns": {"mean": 2000.0, "percentile": {"50.000000": 1000, "99.900000": 9000}},
        "clat_ns": {"mean": 1.0},
        **more,
    }


def job(name: str = "job", **sides: Any) -> dict[str, Any]:
    return {"jobname": name, "error": 0, "read": side(), "write": side(), "trim": side(), **sides}


def test_a_job_file_says_it_all() -> None:
    lines = Fio(rw="randrw", bs="64K", iodepth=16, mix=70, runtime=1.5).text("/dev/vda")
    assert lines.splitlines() == [
        "[job]",
        "filename=/dev/vda",
        "rw=randrw",
        "bs=65536",
        "iodepth=16",
        "ioengine=libaio",
        "numjobs=1",
        "direct=1",
        "group_reporting=1",
        "percentile_list=50:95:99:99.9",
        "lat_percentiles=1",
        "clat_percentiles=0",
        "rwmixread=70",
        "time_based=1",
        "runtime=1500ms",
        "ramp_time=200ms",
    ]


def test_a_counted_job_has_an_exact_number_of_requests_and_no_clock() -> None:
    lines = Fio().counted("/dev/sda", 96).splitlines()
    assert "number_ios=96" in lines
    assert not [line for line in lines if line.startswith(("time_based", "runtime", "ramp"))]


def test_labels_tell_workloads_apart() -> None:
    assert Fio(rw="write", bs="1M", iodepth=4).label == "write-1M-x4"
    assert Fio(rw="randrw", bs=512, mix=70, numjobs=2).label == "randrw70-512-x1-j2"
    assert Iperf("receive", streams=4).label == "receive-tcp-p4"
    assert Iperf("send", "udp", length=64).label == "send-udp-64"
    assert Iperf("send", zero_copy=True).label == "send-tcp-zerocopy"
    assert RoundTrip(protocol="udp").label == "round-trip-udp-64"


def test_a_job_file_of_ones_own_gets_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "own.fio"
    path.write_text("[a]\nrw=read\nfilename=${DEVICE}\n")
    own = Fio(job=path, name="own")
    assert own.text("/dev/vda") == (
        "[global]\nfilename=/dev/vda\ngroup_reporting=1\n[a]\nrw=read\nfilename=/dev/vda\n"
    )
    assert (own.label, own.countable) == ("own", False)


@pytest.mark.parametrize(
    ("make", "field", "sentence"),
    [
        pytest.param(
            lambda: Fio(rw="randwriet"),
            "rw",
            "rw must be one of randread, randrw, randwrite, read, rw, write"
            " (did you mean 'randwrite'?), got 'randwriet'",
            id="pattern",
        ),
        pytest.param(
            lambda: Fio(bs=1000),
            "bs",
            "bs must be a multiple of 512, as direct I/O needs, got 1000",
            id="block-size",
        ),
        pytest.param(
            lambda: Fio(job="[a]\nfilename=/tmp/x\n"),
            "job",
            "job must leave the file to the benchmark (or name it ${DEVICE}), got 'filename='",
            id="own-file",
        ),
        pytest.param(
            lambda: Iperf("sent"),
            "direction",
            "direction must be one of both, receive, send (did you mean 'send'?), got 'sent'",
            id="direction",
        ),
        pytest.param(
            lambda: Iperf("send", "udp", zero_copy=True),
            "zero_copy",
            "zero_copy is for TCP, got True",
            id="zero-copy",
        ),
    ],
)
def test_a_workload_that_cannot_be_says_why(make: Any, field: str, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert (caught.value.field, str(caught.value)) == (field, sentence)


def test_one_direction_gives_its_figures() -> None:
    assert list(fio.figures({"jobs": [job(write=side(10))]})) == [
        Figure("throughput", 40960, "B/s"),
        Figure("iops", 10.0, "1/s"),
        Figure("latency-mean", 2e-6, "s"),
        Figure("latency-p50", 1e-6, "s"),
        Figure("latency-p99.9", 9e-6, "s"),
    ]


def test_mixed_directions_give_the_sum_and_each() -> None:
    found = {f.metric: f.value for f in fio.figures({"jobs": [job(read=side(5), write=side(10))]})}
    assert found["throughput"] == found["throughput read"] + found["throughput write"] == 61440
    assert found["iops"] == 15


def test_jobs_of_one_file_are_told_apart() -> None:
    report = {"jobs": [job("a", read=side(1)), job("b", read=side(2))]}
    found = {f.metric for f in fio.figures(report)}
    assert {"throughput a", "throughput b", "latency-p50 b"} <= found


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        pytest.param(
            {"jobs": [job()]}, "fio's job job failed in the guest: it did no I/O", id="idle"
        ),
        pytest.param(
            {"jobs": [job() | {"error": 5}]},
            "fio's job job failed in the guest: an I/O error",
            id="error",
        ),
    ],
)
def test_a_job_that_failed_gives_no_figures(report: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GuestError) as caught:
        list(fio.figures(report))
    assert str(caught.value) == sentence


def test_iperf_counts_what_arrived() -> None:
    end = {
        "sum_sent": {"bits_per_second": 900.0, "bytes": 9, "retransmits": 3},
        "sum_received": {"bits_per_second": 800.0, "bytes": 8},
    }
    assert list(iperf.figures({"end": end})) == [
        Figure("throughput", 100.0, "B/s"),
        Figure("retransmits", 3, "1"),
    ]


def test_iperf_takes_what_udp_lost_from_the_senders_sum() -> None:
    lost = {"lost_percent": 25.0, "jitter_ms": 2.0, "packets": 40, "seconds": 2.0, "sender": True}
    end = {"sum": {"bits_per_second": 800.0, "bytes": 8, **lost}}
    assert list(iperf.figures({"end": end})) == [
        Figure("throughput", 75.0, "B/s"),
        Figure("jitter", 0.002, "s"),
        Figure("loss", 0.25, "1"),
        Figure("packets", 15.0, "1/s"),
    ]


def test_iperfs_own_words_are_the_error() -> None:
    with pytest.raises(GuestError, match="iperf3 failed in the guest: unable to connect"):
        list(iperf.figures({"error": "unable to connect"}))


def test_iperfs_words() -> None:
    words = Iperf("receive", "udp", length=512, rate=10**7, streams=2).argv("10.0.2.2", 5201)
    said = "iperf3 --json --client 10.0.2.2 --port 5201 --time 1 --reverse --udp"
    assert " ".join(words) == f"{said} --bitrate 10000000 --length 512 --parallel 2"
    assert "--bytes" in Iperf().argv("10.0.2.2", 5201, size=1 << 20)
