"""VMs and containers have one face: the same names, arguments and results for the same thing."""

from __future__ import annotations

import inspect
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from support.containers import REASON, new_store

from pyvirt import (
    VM,
    Container,
    GuestError,
    RunError,
    RunningContainer,
    RunningVM,
    RunTimedOut,
    SpecError,
)
from pyvirt.aio import container as awaited_container
from pyvirt.aio import vm as awaited_vm
from pyvirt.errors import ClosedError, TimedOut

pytestmark = pytest.mark.timeout(300)

Running: TypeAlias = RunningVM | RunningContainer

#: What both have under one name but do not do alike, and why.
DIFFERENT = {
    "start": "a container may be detached, and lives in a store",
    "freeze": "a VM's file systems, but a container's processes",
    "thaw": "the same",
    "plug": "parts are of other classes",
    "unplug": "the same",
    "wait_for": "a VM has a screen, a container LXC's states",
    "wait": "how it ended is told in the words of each",
    "shutdown": "the same",
    "stop": "the same",
    "console": "the same class, documented in the words of each",
    "exit": "the same",
}

#: What both must have.
COMMON = {
    "status", "pause", "resume", "shutdown", "stop", "wait", "wait_for", "run", "spawn", "put",
    "get", "read_text", "read_bytes", "write_text", "ping", "guest_info", "network_statistics",
    "console", "pid", "exit", "close", "plug", "unplug",
}  # fmt: skip

FACES = [
    pytest.param(RunningVM, RunningContainer, id="blocking"),
    pytest.param(awaited_vm.RunningVM, awaited_container.RunningContainer, id="awaited"),
]


def public(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if not name.startswith("_")}


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any, Any]]:
    known = inspect.signature(method).parameters.values()
    return [(one.name, one.kind, one.default, one.annotation) for one in known
            if one.name != "self"]  # fmt: skip


@pytest.mark.parametrize(("vm", "container"), FACES)
def test_what_does_the_same_has_the_same_signature(vm: type, container: type) -> None:
    here, there = public(vm), public(container)
    assert set(here) & set(there) >= COMMON
    for name in (set(here) & set(there)) - set(DIFFERENT):
        assert isinstance(here[name], property) == isinstance(there[name], property), name
        if callable(here[name]):
            assert parameters(here[name]) == parameters(there[name]), name
            ours, theirs = (inspect.signature(each[name]) for each in (here, there))
            assert ours.return_annotation == theirs.return_annotation, name


@pytest.mark.parametrize(("vm", "container"), FACES)
def test_what_differs_differs_only_where_it_must(vm: type, container: type) -> None:
    for name in ("wait", "shutdown", "stop"):
        assert parameters(getattr(vm, name)) == parameters(getattr(container, name)), name
    ours, theirs = (
        {name: (kind, default) for name, kind, default, _ in parameters(each.wait_for)}
        for each in (vm, container)
    )
    assert set(ours) ^ set(theirs) == {"text", "state"}
    assert all(ours[name] == theirs[name] for name in set(ours) & set(theirs))


def test_the_awaited_container_cannot_drift_from_the_blocking_one() -> None:
    here, there = public(awaited_container.RunningContainer), public(RunningContainer)
    assert set(here) - {"of"} == set(there) - {"start", "attach"}
    for name in set(here) & set(there):
        assert isinstance(here[name], property) == isinstance(there[name], property), name
        if callable(here[name]):
            words = [each[:3] for each in parameters(here[name])]
            assert words == [each[:3] for each in parameters(there[name])], name
            assert inspect.iscoroutinefunction(here[name]), name


# One suite for both


@pytest.fixture(scope="module")
def container() -> Iterator[RunningContainer]:
    if REASON is not None:
        pytest.skip(REASON)
    with new_store() as store, RunningContainer.start(Container(), store=store) as running:
        yield running


@pytest.fixture(params=["vm", "container"])
def inside(request: pytest.FixtureRequest) -> Running:
    """A running default guest, and a running default container."""
    name = "guest" if request.param == "vm" else "container"
    running: Running = request.getfixturevalue(name)
    return running


def test_a_result_tells_all(inside: Running) -> None:
    result = inside.run("cat; echo err >&2; exit 3", input="in")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "in", "err\n")
    assert result.duration >= 0
    assert not result.ok
    with pytest.raises(RunError) as caught:
        inside.run("exit 3", check=True)
    assert caught.value.result.exit_code == 3
    assert inside.run("kill -9 $$").signal == 9


def test_a_command_gets_what_it_is_given(inside: Running) -> None:
    script = "echo $A $PWD $(id -u)"
    given = inside.run(script, env={"A": "1 2"}, cwd="/tmp", user="nobody", check=True)
    assert given.stdout == "1 2 /tmp 65534\n"
    assert inside.run(["echo", "$A", "*"]).stdout == "$A *\n"
    assert inside.run("printf '\\377'", encoding=None).stdout == b"\xff"


def test_output_is_kept_to_a_limit_or_goes_to_a_sink(inside: Running) -> None:
    cut = inside.run("head -c 100000 /dev/zero | tr '\\0' x", limit=10)
    assert cut.stdout == "x" * 10
    assert cut.cut
    heard: list[bytes] = []
    inside.run("head -c 300000 /dev/zero", stdout=heard.append, check=True)
    assert sum(map(len, heard)) == 300000


def test_a_timeout_kills_all_that_the_command_began(inside: Running) -> None:
    with pytest.raises(RunTimedOut) as caught:
        inside.run("echo begun; sleep 4321 & sleep 4321", timeout=2)
    assert caught.value.stdout == "begun\n"
    assert caught.value.ended
    assert inside.run("ps | grep -c '[s]leep 4321'").stdout == "0\n"


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        pytest.param({"command": ["/no/such"]}, GuestError, id="program"),
        pytest.param({"command": "true", "cwd": "/no/such"}, GuestError, id="cwd"),
        pytest.param({"command": "true", "user": "nosuch"}, GuestError, id="user"),
        pytest.param({"command": []}, SpecError, id="nothing"),
        pytest.param({"command": "true", "env": {"A=": "1"}}, SpecError, id="env"),
    ],
)
def test_what_cannot_run_says_why(
    inside: Running, how: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        inside.run(**how)


def test_streams_are_live(inside: Running) -> None:
    with inside.spawn("while read x; do echo got $x; done; exit 7") as process:
        for word in (b"one", b"two"):
            process.stdin.write(word + b"\n")
            assert process.stdout.readline() == b"got " + word + b"\n"
        process.stdin.close()
        assert process.wait(60).exit_code == 7


def test_a_terminal_is_one(inside: Running) -> None:
    with inside.spawn("tty; stty size", pty=True) as process:
        assert process.stdout.read().startswith(b"/dev/pts/")


def test_files_go_and_come(inside: Running, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    assert inside.put(data, "/tmp/face", mode=0o640) == len(data)
    assert inside.run(["stat", "-c", "%a", "/tmp/face"]).stdout == "640\n"
    sink = io.BytesIO()
    assert inside.get("/tmp/face", sink) == len(data)
    assert sink.getvalue() == data
    assert inside.write_text("/tmp/face", "Grüße") == len("Grüße".encode())
    assert inside.read_text("/tmp/face") == "Grüße"
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "b").write_text("deep")
    inside.put(tree, "/tmp/tree")
    inside.get("/tmp/tree", tmp_path / "back", tree=True)
    assert (tmp_path / "back/a/b").read_text() == "deep"
    with pytest.raises(GuestError):
        inside.read_bytes("/no/such")
    inside.run("rm -r /tmp/face /tmp/tree", check=True)


def test_facts_are_told(inside: Running) -> None:
    assert inside.ping() > 0
    info = inside.guest_info()
    assert info.hostname == inside.run("hostname").stdout.strip()
    assert "lo" in {one.name for one in info.interfaces}
    assert "lo" in inside.network_statistics()
    assert inside.status() == "running"
    assert inside.exit is None


def test_a_listener_is_waited_for(inside: Running) -> None:
    inside.run("ip link set lo up")
    with inside.spawn("sleep 0.2; nc -l -p 4321 </dev/null"):
        inside.wait_for(port=4321, timeout=60)
    with pytest.raises(TimedOut):
        inside.wait_for(port=4322, timeout=0.2)
    with pytest.raises(SpecError):
        inside.wait_for()


def test_it_stands_still_and_goes_on(inside: Running) -> None:
    inside.pause()
    assert inside.status() in ("paused", "frozen")
    inside.resume()
    assert inside.run("echo on").stdout == "on\n"


def test_many_at_once_are_told_apart(inside: Running) -> None:
    processes = [inside.spawn(f"read x; echo {n}") for n in range(8)]
    for process in reversed(processes):
        process.stdin.write(b"\n")
    assert [process.stdout.read() for process in processes] == [b"%d\n" % n for n in range(8)]
    for process in processes:
        process.close()


@pytest.fixture(params=["vm", "container"])
def mortal(request: pytest.FixtureRequest) -> Iterator[Running]:
    """One of each, to be ended by the test."""
    if request.param == "vm":
        with VM(memory="128M").start() as vm:
            vm.wait_for(agent=True)
            yield vm
        return
    if REASON is not None:
        pytest.skip(REASON)
    with new_store() as store, RunningContainer.start(Container(), store=store) as running:
        yield running


def test_a_crash_ends_what_waits_and_is_told(mortal: Running) -> None:
    with mortal.spawn(["sleep", "4321"]) as process:
        os.kill(mortal.pid, 9)
        with pytest.raises(ClosedError):
            process.wait(60)
    end = mortal.wait(60)
    assert (end.reason, mortal.exit) == ("killed", end)
    with pytest.raises(ClosedError):
        mortal.run("true")
    mortal.close()
    mortal.close()
    limit = time.monotonic() + 60
    while Path(f"/proc/{mortal.pid}").exists() and mortal.pid > 0 and time.monotonic() < limit:
        time.sleep(0.01)
