"""Whether the host was quiet, from two looks at its counters."""

from __future__ import annotations

import os
import time

import attrs
import pytest

from pyvirt.bench import host
from pyvirt.bench.host import Snapshot

BEFORE = Snapshot(time=100.0, used=50.0, stolen=1.0, own=10.0, load=0.5, frequency=3e9)


def after(**change: float) -> Snapshot:
    return attrs.evolve(BEFORE, time=102.0, **change)


def test_a_host_that_does_nothing_else_is_quiet() -> None:
    condition = host.between(BEFORE, after(used=52.0, own=12.0, load=0.9))
    assert (condition.foreign, condition.stolen, condition.load) == (0.0, 0.0, 0.9)
    assert not condition.busy


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"used": 53.0, "own": 11.0}, id="others-compute"),
        pytest.param({"stolen": 1.5}, id="a-hypervisor-takes"),
        pytest.param({"frequency": 2e9}, id="the-clock-slows"),
    ],
)
def test_a_busy_host_is_told(change: dict[str, float]) -> None:
    assert host.between(BEFORE, after(**change)).busy


def test_what_the_benchmark_uses_itself_is_its_own() -> None:
    before = host.snapshot([])
    begun = time.process_time()
    while time.process_time() - begun < 0.1:
        pass
    own = host.snapshot([os.getpid()]).own - before.own
    assert own >= 0.05


def test_a_process_that_has_ended_is_no_error() -> None:
    assert host.snapshot([2**22 + 1]).own >= 0


def test_the_host_is_described() -> None:
    facts = host.facts()
    assert facts["cpus"] == len(os.sched_getaffinity(0))
    assert str(facts["kernel"]).startswith("Linux")
    assert facts["cpu"]
