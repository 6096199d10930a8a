"""Real containers: started, looked into, changed, ended."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.containers import needs_containers, traces

from pyvirt import Container, ContainerError, RunningContainer, SpecError, StartError, aio
from pyvirt.container import (
    Bind,
    Directory,
    HostDevice,
    IdMap,
    IdRange,
    Limits,
    Physical,
    Seccomp,
    Tmpfs,
    Veth,
)
from pyvirt.errors import ClosedError, LimitError, RootFSError, TimedOut, UnsupportedError
from pyvirt.running.lxc import host
from pyvirt.running.lxc.store import Store

pytestmark = [needs_containers, pytest.mark.timeout(240)]

start = RunningContainer.start


def test_commands_see_nothing_of_the_host(contained: RunningContainer) -> None:
    script = "for fd in /proc/self/fd/*; do readlink $fd; done"
    open_there = set(contained.run(script).stdout.split())
    kinds = {name.partition("[")[0].rstrip(":0123456789") for name in open_there}
    assert kinds <= {"pipe", "/dev/null", "/proc/self/fd"}
    assert len(open_there) <= 6


def test_it_has_a_name_of_its_own_and_a_loopback(contained: RunningContainer) -> None:
    assert contained.run("hostname").stdout == "shared\n"
    assert contained.addresses()["lo"][0] == "127.0.0.1/8"
    assert contained.run("cat /proc/1/comm").stdout == "init\n"


def test_it_is_frozen_and_goes_on(contained: RunningContainer) -> None:
    with contained.spawn(["cat"]) as process:
        contained.pause()
        assert contained.status() == "frozen"
        contained.resume()
        contained.wait_for(state="running", timeout=60)
        process.stdin.write(b"on\n")
        assert process.stdout.readline() == b"on\n"


def test_no_state_is_waited_for_that_does_not_exist(contained: RunningContainer) -> None:
    with pytest.raises(SpecError) as caught:
        contained.wait_for(state="paused")
    assert caught.value.field == "state"


def test_what_it_uses_is_counted(contained: RunningContainer) -> None:
    contained.run("yes | head -c 1000000 | md5sum", check=True)
    now = contained.stats()
    assert now.cpu is not None
    assert now.cpu > 0
    assert now.memory is not None
    assert now.memory > 0
    assert now.pids is not None
    assert now.pids >= 2
    assert set(now.network) == {"lo"}


def test_everything_described_is_so(store: Store, tmp_path: Path) -> None:
    shared = store.root / ".shared dir"
    shared.mkdir()
    (shared / "file").write_text("theirs")
    described = Container(
        hostname="full.example",
        command=["sh", "-c", "echo $PWD $LANG $(id -u); exec sleep 1000"],
        env={"LANG": "C.UTF-8"},
        cwd="/tmp",
        user="nobody",
        memory="32M",
        cpus=0.5,
        cpu_shares=512,
        cpu_set="0",
        pids=64,
        devices=[HostDevice("/dev/zero", "/dev/null2", access="r")],
        mounts=[Bind(str(shared), "/their data", readonly=True), Tmpfs("/mem", size="1M")],
        drop_capabilities=["mknod"],
        rlimits={"nofile": 77},
        sysctls={"net.ipv4.ip_forward": 1},
        seccomp=Seccomp(deny=["sethostname"], errno=38),
    )
    with start(described, store=store) as running:
        running.wait_for(serial="/tmp C.UTF-8 65534", timeout=60)
        assert running.run("hostname").stdout == "full.example\n"
        assert running.run("cat '/their data/file'; touch '/their data/x'").stdout == "theirs"
        assert running.run("ulimit -n").stdout == "77\n"
        assert running.run("cat /proc/sys/net/ipv4/ip_forward").stdout == "1\n"
        assert running.run("head -c 2 /dev/null2 | wc -c").stdout == "2\n"
        assert "1024" in running.run("df -k /mem").stdout
        assert running.run(["stat", "/proc/self/cwd"]).ok
        assert running.stats().memory_limit == 32 << 20
        assert not running.run("mknod /n c 1 3").ok
        assert "Function not implemented" in running.run("hostname other").stderr
    shared.joinpath("file").unlink()
    shared.rmdir()


@pytest.mark.parametrize(
    "command", [["sh", "-c", "sleep 1000 & exit 3"], ["sh", "-c", "kill -9 $$"]]
)
def test_the_end_of_the_command_is_its_own(store: Store, command: list[str]) -> None:
    with start(Container(command=command), store=store) as running:
        end = running.wait(60)
    assert end.code == (3 if "exit 3" in command[-1] else 137)
    assert end.reason == "exited"
    assert traces(running.name, store) == []


@pytest.mark.parametrize(
    ("described", "why"),
    [
        pytest.param({"command": ["nothing"]}, "command nothing: No such file or directory",
                     id="missing"),
        pytest.param({"command": ["/etc/passwd"]}, "command /etc/passwd: Permission denied",
                     id="no-program"),
        pytest.param({"command": ["true"], "cwd": "/none"}, "cwd /none: No such file or directory",
                     id="cwd"),
        pytest.param({"command": ["true"], "user": "none"},
                     "user none: is not in /etc/passwd, or its group not in /etc/group", id="user"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_run_is_no_start(
    store: Store, described: dict[str, Any], why: str
) -> None:
    with pytest.raises(StartError) as caught:
        start(Container(name="unable", **described), store=store)
    assert caught.value.why == why
    assert traces("unable", store) == []


def test_a_command_may_end_as_one_that_is_not_there(store: Store) -> None:
    with start(Container(command=["sh", "-c", "nothing"]), store=store) as running:
        assert running.wait(60).code == 127


def test_what_is_typed_on_the_console_arrives(store: Store) -> None:
    command = ["sh", "-c", "read x; echo got $x; exit 5"]
    with start(Container(command=command), store=store) as running:
        running.console.write("text\n")
        assert running.wait_for(serial="got (.*)", timeout=60)[1] == "text"  # type: ignore[index]
        assert running.wait(60).code == 5
        assert "got text" in running.console.text


def test_asked_to_end_it_ends(store: Store) -> None:
    with start(Container(command=["sleep", "1000"]), store=store) as running:
        end = running.shutdown(timeout=60)
        assert (end.reason, end.code) == ("stopped", 128 + signal.SIGTERM)
        assert running.exit == end
        with pytest.raises(ClosedError):
            running.run("true")


def test_deaf_to_requests_it_goes_on_or_is_killed(store: Store) -> None:
    deaf = Container(command=["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"])
    with start(deaf, store=store) as running:
        running.wait_for(serial="deaf", timeout=60)
        with pytest.raises(TimedOut):
            running.shutdown(timeout=0.2, firm=False)
        assert running.status() == "running"
        running.pause()
        assert running.shutdown(timeout=0.2).signal == signal.SIGKILL


def test_it_is_started_again(store: Store) -> None:
    with start(Container(command=["sleep", "1000"]), store=store) as running:
        running.write_text("/mark", "kept")
        before = running.pid
        running.reboot(timeout=60)
        assert running.pid != before
        assert running.read_text("/mark") == "kept"
    assert traces(running.name, store) == []


def test_limits_change_while_it_runs_and_are_read_back(store: Store) -> None:
    with start(Container(memory="32M", pids=50), store=store) as running:
        now = running.limit(memory="48M", cpus=0.5, cpu_set="0")
        assert (now.memory, now.cpus, now.pids) == (48 << 20, 0.5, 50)
        assert running.container.memory == 48 << 20
        assert running.stats().memory_limit == 48 << 20
        with pytest.raises(ContainerError) as caught:
            running.limit(cpu_set="0-4000")
        assert caught.value.what == "setting cpu_set"
        assert running.container.cpu_set == "0"
        with pytest.raises(SpecError):
            running.limit(colour="red")


def test_limits_are_lifted_while_it_runs_and_kept_when_it_starts_again(store: Store) -> None:
    described = Container(
        command=["sleep", "1000"], memory="32M", swap=0, pids=50, cpu_quota=20000, cpu_set="0"
    )
    with start(described, store=store) as running:
        assert running.limit(memory="48M").swap == 0
        assert running.limit(swap="1M").memory == 48 << 20
        assert running.limit(cpus=0.5).cpu_quota is None
        now = running.limit(memory=None, pids=None, cpus=None, cpu_set=None)
        assert now == Limits()
        assert (running.stats().memory_limit, running.stats().pids_limit) == (None, None)
        running.limit(pids=77)
        running.reboot(timeout=60)
        assert (running.stats().memory_limit, running.stats().pids_limit) == (None, 77)


def test_a_limit_bites(store: Store) -> None:
    with start(Container(pids=12), store=store) as running:
        result = running.run("for i in $(seq 30); do sleep 9 >/dev/null 2>&1 & done")
        assert "can't fork" in result.stderr


def test_a_limit_of_the_other_layout_is_not_lost_in_silence(store: Store) -> None:
    layout = host.layout()
    key = "lxc.cgroup2.pids.max" if layout.version("pids") == 1 else "lxc.cgroup.pids.max"
    with pytest.raises((LimitError, StartError)) as caught:
        start(Container(name="silent", raw={key: "12"}), store=store)
    if isinstance(caught.value, LimitError):
        assert caught.value.field == f"raw['{key}']"
    assert traces("silent", store) == []


def test_devices_and_mounts_come_and_go(contained: RunningContainer, store: Store) -> None:
    shared = store.root / ".live"
    shared.mkdir()
    (shared / "file").write_text("theirs")
    mounts = [Bind(str(shared), "/mnt/a/b", readonly=True), Tmpfs("/mnt/t", size="1M")]
    for part in mounts:
        assert contained.plug(part) == part.target
    assert contained.read_text("/mnt/a/b/file") == "theirs"
    assert "Read-only" in contained.run("touch /mnt/a/b/x").stderr
    assert "1024" in contained.run("df -k /mnt/t").stdout
    for part in mounts:
        contained.unplug(part)
    assert contained.run("ls /mnt/a/b /mnt/t").stdout == "/mnt/a/b:\n\n/mnt/t:\n"
    zero = HostDevice("/dev/zero", "/dev/nought")
    assert contained.plug(zero) == "/dev/nought"
    assert contained.run("head -c 3 /dev/nought | wc -c").stdout == "3\n"
    contained.unplug(zero)
    assert contained.run("head -c 3 /dev/nought | wc -c").stdout == "0\n"
    with pytest.raises(ContainerError) as caught:
        contained.unplug(Tmpfs("/mnt/t"))
    assert caught.value.words == os.strerror(22)


MISTAKES = [
    pytest.param({"rootfs": Directory("/nowhere/at/all")}, Exception, "is not there", id="rootfs"),
    pytest.param({"init": "/sbin/none"}, RootFSError, "has no /sbin/none", id="init"),
    pytest.param({"devices": [HostDevice("/dev/gone")]}, UnsupportedError, "gone", id="device"),
    pytest.param({"nics": [Veth("nobridge")]}, UnsupportedError, "nobridge", id="bridge"),
    pytest.param({"nics": [Physical("nocard")]}, UnsupportedError, "nocard", id="card"),
    pytest.param({"mounts": [Bind("/gone", "/x")]}, SpecError, "'/gone'", id="mount"),
    pytest.param({"mounts": [Bind("/etc/passwd", "/x")]}, SpecError, "no directory", id="file"),
    pytest.param({"raw": {"lxc.arch": "abacus"}}, ContainerError, "what is in raw", id="value"),
    pytest.param({"raw": {"lxc.nonsense": 1}}, UnsupportedError, "lxc.nonsense", id="key"),
    pytest.param({"cpu_set": "4000"}, StartError, "cpuset.cpus", id="cpus"),
    pytest.param({"seccomp": Seccomp(text="9\nnonsense")}, StartError, "seccomp", id="seccomp"),
    pytest.param(
        {"user": "70000", "idmap": IdMap([IdRange(0, 0, 1)], [IdRange(0, 0, 1)])},
        (SpecError, UnsupportedError),
        "idmap|/etc/subuid",
        id="user",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("described", "kind", "words"), MISTAKES)
def test_a_mistake_says_what_and_leaves_nothing(
    store: Store, described: dict[str, object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        start(Container(name="mistaken", **described), store=store)  # type: ignore[arg-type]
    assert traces("mistaken", store) == []


def test_a_range_that_nobody_gave_is_explained(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.shutil, "which", lambda name: f"/usr/bin/{name}")
    wild = IdMap([IdRange(0, 3_000_000_000, 65536)], [IdRange(0, 3_000_000_000, 65536)])
    with pytest.raises(UnsupportedError) as caught:
        start(Container(idmap=wild), store=store)
    assert caught.value.where == "/etc/subuid"
    assert "'root:3000000000:65536'" in caught.value.hint


def test_files_of_any_bytes_pass(contained: RunningContainer) -> None:
    data = os.urandom(300_000)
    contained.put(data, "/tmp/data")
    sink = io.BytesIO()
    contained.get("/tmp/data", sink)
    assert sink.getvalue() == data


def test_it_is_awaited(store: Store) -> None:
    async def scenario() -> None:
        async with aio.start(Container(), store=store) as running:
            results = await asyncio.gather(*(running.run(f"echo {n}") for n in range(5)))
            assert [result.stdout for result in results] == [f"{n}\n" for n in range(5)]
            async with asyncio.timeout(60):
                process = await running.spawn(["cat"])
                await process.close()
        assert traces(running.name, store) == []

    asyncio.run(scenario())
