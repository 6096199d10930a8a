"""One booted default guest for all tests of a worker that only need a guest."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pyvirt import CDROM, CPU, VM, Machine, Memory, Nic, RunningVM
from pyvirt.devices import Balloon, StdVga, UsbTablet

# A shell ignores SIGINT in what it starts in the background; tests of Ctrl-C are about Python's.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test asserts a time: a busy machine would fail it. The suite draws the same examples each
# time, so that its verdict is about the change; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


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


@pytest.fixture(scope="session", autouse=True)
def own_store() -> Iterator[None]:
    """Containers of tests live in a store of their own, also those of other processes."""
    root = Path(tempfile.gettempdir(), f"pyvirt-tests-{secrets.token_hex(8)}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYVIRT_STORE", str(root))  # made with the first container
        yield
    shutil.rmtree(root, ignore_errors=not root.exists())
