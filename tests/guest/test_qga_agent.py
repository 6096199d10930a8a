from __future__ import annotations

import pytest
from agents import qga_carrier
from carrier_suite import CarrierSuite


@pytest.fixture(scope="module")
def carrier(tmp_path_factory):
    with qga_carrier(tmp_path_factory.mktemp("qga")) as carrier:
        yield carrier


@pytest.fixture
def own_carrier(tmp_path):
    with qga_carrier(tmp_path) as carrier:
        yield carrier


class TestQemuGuestAgent(CarrierSuite):
    """QEMU's guest agent, on this host."""
