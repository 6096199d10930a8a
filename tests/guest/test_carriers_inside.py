"""The shared suite, where it counts: both agents inside one booted guest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from carrier_suite import CarrierSuite
from support.qemu import needs_qemu

from pyvirt import VM, Guest, GuestError, RunningVM
from pyvirt.guest.carrier import Carrier

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

NUMBERS = itertools.count()


def answering(running: RunningVM, agent: str) -> Carrier:
    carrier = running._engine.carriers[running.vm.channels.index(agent)]
    carrier.ready.result(120)
    return carrier


class Inside(CarrierSuite):
    """The suite in a guest that this process only reaches through the carrier."""

    agent = ""

    @pytest.fixture
    def carrier(self, both: RunningVM) -> Carrier:
        return answering(both, self.agent)

    @pytest.fixture
    def own_carrier(self) -> Iterator[Carrier]:
        vm = VM(memory="256M", boot=Guest(qga=self.agent == "qga"), agents=[self.agent])
        with vm.start() as running:
            yield answering(running, self.agent)

    @pytest.fixture
    def folder(self, carrier: Carrier) -> str:
        path = f"/tmp/guest folder {next(NUMBERS)}"
        carrier.run(["mkdir", path]).result(60).check()
        return path


    def test_another_user(self, carrier: Carrier) -> None:
        result = carrier.run('id -u; id -g; id -G; echo "$HOME $USER $LOGNAME"', user="nobody")
        assert result.result(60).check().stdout == "65534\n65534\n65534\n/ nobody nobody\n"

    def test_a_user_who_is_not_there(self, carrier: Carrier) -> None:
        with pytest.raises(GuestError):
            carrier.run("true", user="no-such-user").result(60)


class TestNativeAgentInside(Inside):
    """pyvirt's agent, process 1 of its guest."""

    agent = "pyvirt"


class TestQemuGuestAgentInside(Inside):
    """QEMU's guest agent, with busybox around it."""

    agent = "qga"
