"""Agents that run on this host, so that everything but the guest is real."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import pyvirt
from pyvirt.running.agents.native import NativeAgent
from pyvirt.running.agents.qga import QemuGuestAgent

AGENT = Path(pyvirt.__file__).parent / "_native" / "bin" / "agent"


@contextmanager
def native_process():
    """The agent's process, and our end of its connection."""
    if not AGENT.exists():
        pytest.skip("the agent is not built")
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [AGENT, "--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
    try:
        yield process, ours
    finally:
        ours.close()
        assert process.wait(20) == 0, "the agent must end with its connection"


@contextmanager
def native_carrier():
    with native_process() as (process, ours):
        carrier = NativeAgent(ours, lambda: f"the agent ended ({process.poll()})")
        try:
            yield carrier
        finally:
            carrier.close()


@contextmanager
def qga_carrier(folder: Path):
    """QEMU's agent answers one connection at a time."""
    path, binary = folder / "qga", shutil.which("qemu-ga")
    if binary is None:
        pytest.skip("qemu-ga is not installed (Debian: qemu-guest-agent)")
    words = [binary, "-m", "unix-listen", "-p", path, "-t", folder, "-f", folder / "pid"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    ours = socket.socket(socket.AF_UNIX)
    try:
        deadline = time.monotonic() + 20
        while ours.connect_ex(os.fspath(path)) != 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        carrier = QemuGuestAgent(ours, lambda: f"the agent ended ({process.poll()})")
        try:
            yield carrier
        finally:
            carrier.close()
    finally:
        process.kill()
        process.wait(20)
