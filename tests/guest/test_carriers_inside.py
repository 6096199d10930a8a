"""The shared suite, where it counts: both agents inside one booted guest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from carrier_suite import CarrierSuite
from support.qemu import needs_qemu

from pyvirt import VM, Guest, Nic, RunningVM
from pyvirt.guest.carrier import Carrier

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

NUMBERS = itertools.count()

BOTH = VM(
    name="carriers",
    memory="384M",
    nics=[Nic()],
    boot=Guest(qga=True),
)


def answering(running: RunningVM, agent: str) -> Carrier:
    carrier = running._engine.carriers[running.vm.channels.index(agent)]
    carrier.ready.result(120)
    return carrier


@pytest.fixture(scope="module")
def running() -> Iterator[RunningVM]:
    with BOTH.start() as running:
        yield running


@pytest.fixture(scope="module")
def expendable() -> Iterator[RunningVM]:
    """A guest whose connections tests may close."""
    with BOTH.start() as running:
        yield running


class Inside(CarrierSuite):
    """The suite in a guest that this process only reaches through the carrier."""

    agent = ""

    @pytest.fixture
    def carrier(self, running: RunningVM) -> Carrier:
        return answering(running, self.agent)

    @pytest.fixture
    def own_carrier(self, expendable: RunningVM) -> Carrier:
        return answering(expendable, self.agent)

    @pytest.fixture
    def folder(self, carrier: Carrier) -> str:
        path = f"/tmp/guest folder {next(NUMBERS)}"
        carrier.run(["mkdir", path]).result(60).check()
        return path


class TestNativeAgentInside(Inside):
    """pyvirt's agent, process 1 of its guest."""

    agent = "pyvirt"


class TestQemuGuestAgentInside(Inside):
    """QEMU's guest agent, with busybox around it."""

    agent = "qga"
