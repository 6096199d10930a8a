from __future__ import annotations

import pytest
from agents import native_carrier
from carrier_suite import CarrierSuite


@pytest.fixture(scope="module")
def carrier():
    with native_carrier() as carrier:
        yield carrier


@pytest.fixture
def own_carrier():
    with native_carrier() as carrier:
        yield carrier


class TestNativeAgent(CarrierSuite):
    """pyvirt's agent, as a daemon on this host."""
