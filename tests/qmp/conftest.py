from __future__ import annotations

import shutil

import pytest
from qmp_peers import BINARY, qemu

from pyvirt.qmp.schema import Schema
from pyvirt.running.wire.monitor import Monitor


@pytest.fixture(scope="session")
def schema_reply():
    """What this QEMU says of its commands, as JSON."""
    if shutil.which(BINARY) is None:
        pytest.skip(f"{BINARY} is not installed")
    with qemu() as (sock, _), Monitor.open(sock, timeout=30) as monitor:
        return monitor.fetch("query-qmp-schema")


@pytest.fixture(scope="session")
def schema(schema_reply):
    return Schema.decode(schema_reply)
