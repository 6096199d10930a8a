"""pyvirt's agent as process 1: what only a guest of one's own lets one try."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Disk, Guest, RunningVM
from pyvirt.errors import ClosedError, GuestError
from pyvirt.running.agents.native import NativeAgent

pytestmark = [
    needs_qemu,
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="mkfs.ext4 is not installed"),
]

SOON = 60
INIT = "mount -t ext4 /dev/vda /mnt; echo as process $$; exit 3"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVM]:
    image = tmp_path_factory.mktemp("disk") / "ext4.raw"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    guest = Guest(init=INIT, modules=["ext4"], files={"/mnt/.keep": b""})
    vm = VM(name="inside", memory="256M", boot=guest, disks=[Disk(image, format="raw")])
    with vm.start() as running:
        yield running


@pytest.fixture
def agent(running: RunningVM) -> NativeAgent:
    carrier = running._engine.carrier
    assert isinstance(carrier, NativeAgent)
    carrier.ready.result(120)
    return carrier


def test_it_is_process_one_and_tells_how_the_script_ended(agent: NativeAgent) -> None:
    assert agent.hello is not None
    assert (agent.hello.pid, agent.hello.init_status) == (1, 3 << 8)
    assert agent.hello.hostname == "pyvirt"


def test_what_a_system_needs_is_there(agent: NativeAgent) -> None:
    paths = "/proc/self /sys/class /dev/null /dev/pts/ptmx /dev/shm /dev/fd/0 /dev/stdin /run"
    agent.run(f"ls -d {paths}").result(SOON).check()
    flags = agent.run("cat /sys/class/net/lo/flags").result(SOON).check().stdout
    assert int(flags, 16) & 1, "the loopback must be up"
    agent.run("echo $PPID | grep -x 1").result(SOON).check()


def test_orphans_are_reaped(agent: NativeAgent) -> None:
    agent.run("for i in 1 2 3 4 5 6 7 8; do (sleep 0.0$i &) ; done").result(SOON).check()
    zombies = "grep -l '^State:.Z' /proc/[0-9]*/status; true"
    deadline = time.monotonic() + SOON
    while agent.run(f"pgrep sleep; {zombies}").result(SOON).stdout:
        assert time.monotonic() < deadline


def test_frozen_until_it_thaws(agent: NativeAgent) -> None:
    assert agent.fsfreeze().result(SOON) == 1
    writing = agent.run("echo x >/mnt/one")
    agent.run("echo y >/tmp/elsewhere").result(SOON).check()
    assert not writing.done()
    assert agent.fsfreeze().result(SOON) == 0, "frozen already"
    assert agent.fsthaw().result(SOON) == 1
    writing.result(SOON).check()
    assert agent.fsthaw().result(SOON) == 0


def test_a_host_that_goes_away_leaves_nothing_frozen(agent: NativeAgent) -> None:
    agent.fsfreeze().result(SOON)
    agent.interrupt(ClosedError("the guest", "the host starts again"))
    agent.ready.result(SOON)
    agent.run("echo x >/mnt/two").result(SOON).check()


def test_clock(agent: NativeAgent) -> None:
    agent.set_time(2_000_000_000.5).result(SOON)
    then = agent.info().result(SOON).time
    assert then is not None
    assert 0 <= then - 2_000_000_000.5 < SOON
    agent.set_time().result(SOON)
    now = agent.info().result(SOON).time
    assert now is not None
    assert abs(now - time.time()) < SOON


def test_info_knows_the_disk(agent: NativeAgent) -> None:
    found = {one.mountpoint: one for one in agent.info().result(SOON).filesystems}
    disk = found["/mnt"]
    assert (disk.type, disk.device) == ("ext4", "/dev/vda")
    assert disk.total is not None
    assert disk.used is not None
    assert 0 < disk.used < disk.total < 16 << 20


def test_put_to_a_device_writes_into_it(agent: NativeAgent) -> None:
    assert agent.put(b"x" * 100, "/dev/null").result(SOON) == 100
    agent.run("test -c /dev/null").result(SOON).check()


def test_a_disk_that_is_full_fails_and_leaves_the_old_file(agent: NativeAgent) -> None:
    agent.put(b"old", "/mnt/file").result(SOON)
    with pytest.raises(GuestError) as caught:
        agent.put(bytes(32 << 20), "/mnt/file").result(SOON)
    assert str(caught.value) == "/mnt/file failed in the guest: No space left on device"
    assert agent.run("cat /mnt/file; ls /mnt | grep -c file").result(SOON).stdout == "old1\n"


def test_three_hundred_commands_at_once_wait_their_turn(agent: NativeAgent) -> None:
    futures = [agent.run(["echo", str(n)]) for n in range(300)]
    done = [future.exception(SOON) or future.result().stdout for future in futures]
    assert done == [f"{n}\n" for n in range(300)]


def test_it_can_be_thawed_when_everything_else_waits(agent: NativeAgent) -> None:
    agent.fsfreeze().result(SOON)
    writing = [agent.run(f"echo x >/mnt/many.{n}") for n in range(150)]
    assert agent.fsthaw().result(SOON) == 1
    assert all(future.result(SOON).ok for future in writing)
