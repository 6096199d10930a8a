"""The names that tables write are the names that the command line takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.bench import Fio, Iperf, RoundTrip, disk, net
from pyvirt.bench.fio import PATTERNS
from pyvirt.bench.words import disk_workload, net_workload
from pyvirt.errors import SpecError

SIZES = st.integers(1, 4096).map(lambda number: number * 512)


@given(st.builds(
    Fio, rw=st.sampled_from(PATTERNS), bs=SIZES, iodepth=st.integers(1, 64),
    numjobs=st.integers(1, 8),
))  # fmt: skip
def test_a_label_of_fio_is_its_word(work: Fio) -> None:
    if re.fullmatch(r".*-\d+[KMG]?-x.*", work.label):  # others are no whole sizes
        assert disk_workload(work.label) == work


@given(st.builds(
    Iperf, st.sampled_from(["send", "receive", "both"]), length=st.integers(0, 9000),
    streams=st.integers(1, 9), mss=st.integers(0, 1460), zero_copy=st.booleans(),
))  # fmt: skip
def test_a_label_of_iperf_is_its_word(work: Iperf) -> None:
    if re.fullmatch(r"[\w-]+", work.label):
        assert net_workload(work.label) == work


def test_every_usual_workload_has_a_word() -> None:
    for point in (*disk.full().points, *disk.headline().points):
        assert disk_workload(point.workload.label).label == point.workload.label
    for card in (*net.full().points, *net.headline().points):
        assert net_workload(card.workload.label).label == card.workload.label


def test_short_words_have_the_usual_rest() -> None:
    assert disk_workload("read-4K") == Fio(rw="read", bs="4K")
    assert net_workload("receive") == Iperf("receive")
    assert net_workload("round-trip") == RoundTrip()


def test_a_job_file_is_a_workload(tmp_path: Path) -> None:
    path = tmp_path / "mine.fio"
    path.write_text("[a]\nrw=read\n")
    work = disk_workload(str(path))
    assert (work.job, work.label) == ("[a]\nrw=read\n", "mine")


@pytest.mark.parametrize("word", ["", "wrte-4K", "write", "write70-4K", "send-4K-x2"])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(SpecError) as caught:
        disk_workload(word)
    assert (caught.value.field, caught.value.value) == ("workload", word)
    with pytest.raises(SpecError, match="must be like send-tcp"):
        net_workload(word)
