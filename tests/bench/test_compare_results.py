"""Verdicts that respect the noise, and refuse what is not comparable."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from support.bench_results import META, count, results, series

from pyvirt.bench import Results
from pyvirt.bench.compare import FASTER, FEWER, INCOMPARABLE, MORE, SAME, SLOWER, Change

STEADY = [100.0, 101.0, 99.0, 100.0, 102.0, 98.0, 100.0]
NOISY = [100.0, 30.0, 250.0, 90.0, 180.0, 45.0, 110.0]


def change(before: list[float], after: list[float], **how: Any) -> Change:
    """The verdict on one figure."""
    (found,) = (
        Results(series("ide", "w", before, **how), meta=META)
        .compare(Results(series("ide", "w", after, **how), meta=META))
        .changes
    )
    return found


def times(values: list[float], factor: float) -> list[float]:
    return [value * factor for value in values]


@pytest.mark.parametrize(
    ("before", "after", "how", "verdict"),
    [
        pytest.param(STEADY, times(STEADY, 1.2), {}, FASTER, id="more-throughput"),
        pytest.param(STEADY, times(STEADY, 0.8), {}, SLOWER, id="less-throughput"),
        pytest.param(STEADY, STEADY, {}, SAME, id="the-same"),
        pytest.param(NOISY, times(NOISY, 1.2), {}, SAME, id="less-than-the-noise"),
        pytest.param(NOISY, times(NOISY, 9), {}, FASTER, id="more-than-the-noise"),
        pytest.param(STEADY, times(STEADY, 1.2), {"metric": "latency-p50", "unit": "s"}, SLOWER,
                     id="more-latency"),
        pytest.param([31.0], [26.0], {"metric": "accesses-per-request", "unit": "1"}, FEWER,
                     id="fewer-accesses"),
        pytest.param([1.0], [1.5], {"metric": "interrupts-per-request", "unit": "1"}, MORE,
                     id="more-interrupts"),
        pytest.param([1.0], [1.01], {"metric": "interrupts-per-request", "unit": "1"}, SAME,
                     id="hardly-more-interrupts"),
    ],
)  # fmt: skip
def test_the_verdict(
    before: list[float], after: list[float], how: dict[str, Any], verdict: str
) -> None:
    assert change(before, after, **how).verdict == verdict


def test_few_rounds_give_no_verdict() -> None:
    found = change([100.0, 100.0], [900.0, 900.0])
    assert str(found) == "no difference seen: too few rounds to know the noise (2)"


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        pytest.param({"accelerator": "kvm"}, "other accelerator (tcg, kvm)", id="accelerator"),
        pytest.param({"host": {"cpu": "Z80", "cpus": 2}}, "other host (AMD EPYC and Z80 cpu)",
                     id="processor"),
        pytest.param({"host": {"cpu": "AMD EPYC", "cpus": 4}}, "other host (2 and 4 cpus)",
                     id="fewer-processors"),
    ],
)  # fmt: skip
def test_other_sources_are_not_comparable(meta: dict[str, Any], why: str) -> None:
    found = results().compare(results(**meta))
    assert {(one.verdict, one.why) for one in found.changes} == {(INCOMPARABLE, why)}
    assert {one.quotient for one in found.changes} == {None}


def test_other_options_are_not_comparable() -> None:
    ours, theirs = (
        Results(series("ide", "w", STEADY, options={"cache": cache}), meta=META)
        for cache in (None, "none")
    )
    (found,) = ours.compare(theirs).changes
    assert str(found) == "not comparable: other options (cache None, none)"


def test_other_versions_are_told() -> None:
    found = results().compare(results(qemu="9.0.0"))
    assert found.differences == ("qemu 7.2.22 before, 9.0.0 after",)
    assert "Also different: qemu 7.2.22 before, 9.0.0 after." in str(found)


def test_a_pair_is_compared_by_its_ratio() -> None:
    """A whole run on a slower day changes the figures, but not what virtio gains."""
    rows = tuple(
        attrs.evolve(row, value=row.value / 2) if row.unit == "B/s" else row
        for row in results().rows
    )
    found = results().compare(attrs.evolve(results(), rows=rows))
    verdicts = {(one.name, one.metric): one.verdict for one in found.changes}
    assert verdicts["virtio-blk/write-1M-x4 to ide/write-1M-x4", "throughput"] == SAME
    assert verdicts["virtio-blk/write-1M-x4", "throughput"] == SLOWER
    assert verdicts["ide/write-1M-x4", "accesses-per-request"] == SAME
    assert found.table().startswith("TCG: processors emulated, not KVM\n")
    assert "TCG: processors emulated, not KVM" in found._repr_html_()


def test_a_figure_of_nothing_is_not_divided_by() -> None:
    assert str(change([0.0] * 5, STEADY)) == "not comparable: a figure is 0"


def test_nothing_in_common_is_no_change() -> None:
    other = Results(count("nvme", "w", "accesses-per-request", 2), meta=META)
    assert results().compare(other).changes == ()
    assert repr(results().compare(other)).startswith("<Comparison: nothing in common;")
