"""One booted default guest for all tests of a worker that only need a guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from pyvirt import CDROM, CPU, VM, Machine, Memory, Nic, RunningVM
from pyvirt.devices import Balloon, StdVga, UsbTablet

# No test asserts a time: a busy machine would fail it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def guest() -> Iterator[RunningVM]:
    """A running default guest with room to plug; tests leave it as they found it."""
    vm = VM(
        name="shared",
        memory=Memory("384M", slots=2, maximum="1G"),
        cpus=CPU(1, maximum=2),
        machine=Machine("q35", hotplug_ports=6),
        nics=[Nic()],
        video=StdVga(),
        disks=[CDROM()],
        devices=[Balloon(), UsbTablet()],
    )
    with vm.start() as running:
        running.wait_for(agent=True)
        yield running
