"""The smoke part of the suite: the blocking face, a little of everything.

`test_smoke_elsewhere` runs this file inside a running event loop and inside IPython too.
"""

from __future__ import annotations

import io
import threading

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Firmware, GuestError, RunError, RunningVM, RunTimedOut, TimedOut
from pyvirt.devices import Rng

pytestmark = [needs_qemu, pytest.mark.timeout(240)]


def test_commands(guest: RunningVM) -> None:
    assert guest.run("echo hello; uname").stdout == "hello\nLinux\n"
    with pytest.raises(RunError):
        guest.run("exit 3", check=True)
    with pytest.raises(RunTimedOut):
        guest.run("sleep 1000", timeout=0.3)


def test_files(guest: RunningVM) -> None:
    guest.write_text("/tmp/smoke", "grüße")
    assert guest.read_text("/tmp/smoke") == "grüße"
    back = io.BytesIO()
    assert guest.get("/tmp/smoke", back) == 7
    with pytest.raises(GuestError):
        guest.read_text("/no/such/file")


def test_live_commands(guest: RunningVM) -> None:
    with guest.spawn(["cat"]) as process:
        process.stdin.write(b"line\n")
        assert process.stdout.readline(timeout=60) == b"line\n"
        process.stdin.close()
        assert process.wait(60).ok


def test_waits_and_events(guest: RunningVM) -> None:
    threading.Timer(0.2, guest.run, ("echo smoke 5 > /dev/ttyS0",)).start()
    match = guest.wait_for(serial=r"smoke (\d)", timeout=60)
    assert match is not None
    assert match[1] == "5"
    with pytest.raises(TimedOut):
        guest.wait_for(serial="never", timeout=0.1)
    with guest.events("STOP") as events:
        guest.pause()
        guest.resume()
        assert events.get(60).name == "STOP"


def test_plugging_and_qmp(guest: RunningVM) -> None:
    name = guest.plug(Rng())
    assert name in guest.parts
    assert guest.qmp.query_status()["running"] is True
    guest.unplug(name)
    assert name not in guest.parts


def test_a_life() -> None:
    with VM(boot=Firmware(), agents=(), memory="64M", accel="tcg").start() as running:
        assert running.status() == "running"
        assert running.stop().reason == "host-qmp-quit"
