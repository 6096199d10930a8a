"""The awaited face of running VMs: the blocking one with another way to wait."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Firmware, GuestError, RunError, RunningVM, RunTimedOut, aio
from pyvirt.aio import console, process, trace, vm
from pyvirt.errors import ClosedError, StartError
from pyvirt.guest import process as blocking_process
from pyvirt.running import console as blocking_console
from pyvirt.running.acts import Acts
from pyvirt.running.rings import trace as blocking_trace

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

IDLE = VM(boot=Firmware(), agents=(), memory="64M", accel="tcg")

#: Each awaited class with its blocking twin, and what only that has.
TWINS = [
    pytest.param(vm.RunningVM, RunningVM, {"start"}, id="RunningVM"),
    pytest.param(console.Console, blocking_console.Console, {"close", "trim"}, id="Console"),
    pytest.param(
        process.Reader,
        blocking_process.Reader,
        {"feed", "finish", "forgo", "reading", "reading_some", "reading_line"},
        id="Reader",
    ),
    pytest.param(process.Writer, blocking_process.Writer, {"send"}, id="Writer"),
    pytest.param(process.GuestProcess, blocking_process.GuestProcess, set(), id="GuestProcess"),
    pytest.param(
        trace.Tracer, blocking_trace.Tracer, {"end_with", "own", "fileno", "noticed"}, id="Tracer"
    ),
]


def public(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if not name.startswith("_")}


def kind(member: Any) -> str:
    return "property" if isinstance(member, property) else "method"


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    known = inspect.signature(inspect.unwrap(method)).parameters.values()
    return [(one.name, one.kind, one.default) for one in known if one.name != "self"]


@pytest.mark.parametrize(("awaited", "twin", "only"), TWINS)
def test_the_two_faces_cannot_drift(awaited: type, twin: type, only: set[str]) -> None:
    here, there = public(awaited), public(twin)
    own = {"of", "log", "name", "queues", "terms", "why"}  # set by __init__ in the other face
    assert set(here) - own == set(there) - only
    for name in set(here) & set(there):
        assert kind(here[name]) == kind(there[name]), name
        if kind(here[name]) == "method":
            assert parameters(here[name]) == parameters(there[name]), name


def test_each_act_is_awaited_and_keeps_its_words() -> None:
    acts = [one for name, one in public(vm.RunningVM).items() if hasattr(Acts, name)]
    assert len(acts) > 40
    assert [act for act in acts if not inspect.iscoroutinefunction(act)] == []
    assert all(act.__doc__ == getattr(Acts, act.__name__).__doc__ for act in acts)


def drive(scenario: Callable[[vm.RunningVM], Any], guest: RunningVM) -> Any:
    return asyncio.run(asyncio.wait_for(scenario(vm.RunningVM.of(guest)), 120))


def test_commands_files_and_facts(guest: RunningVM, tmp_path: Path) -> None:
    async def scenario(running: vm.RunningVM) -> None:
        results = await asyncio.gather(*(running.run(f"echo {n}") for n in range(5)))
        assert [result.stdout for result in results] == [f"{n}\n" for n in range(5)]
        data = os.urandom(1 << 20)
        (tmp_path / "file").write_bytes(data)
        assert await running.put(tmp_path / "file", "/tmp/aio") == len(data)
        assert await running.read_bytes("/tmp/aio") == data
        assert (await running.guest_info()).os["ID"] == "pyvirt"
        assert 0 < await running.ping() < 60
        assert await running.status() == "running"
        assert (await running.qmp.query_status())["running"] is True

    drive(scenario, guest)


def test_refusals_are_raised_where_they_are_awaited(guest: RunningVM) -> None:
    async def scenario(running: vm.RunningVM) -> None:
        with pytest.raises(RunError):
            await running.run("exit 3", check=True)
        with pytest.raises(GuestError):
            await running.read_text("/no/such/file")
        with pytest.raises(RunTimedOut) as caught:
            await running.run("echo begun; sleep 1000", timeout=0.5)
        assert caught.value.stdout == "begun\n"

    drive(scenario, guest)


def test_a_live_command_is_awaited(guest: RunningVM) -> None:
    async def scenario(running: vm.RunningVM) -> None:
        async with await running.spawn("cat; echo end >&2; exit 4") as live:
            await live.stdin.write(b"one\ntwo\nrest")
            assert await live.stdout.readline() == b"one\n"
            with pytest.raises(TimeoutError):
                await live.stdout.read(100, timeout=0.2)
            assert await live.stdout.read(3) == b"two"
            await live.stdin.close()
            assert [line async for line in live.stdout.lines()] == [b"\n", b"rest"]
            assert [piece async for piece in live.stderr] == [b"end\n"]
            assert (await live.wait(20)).exit_code == 4

    drive(scenario, guest)


def test_cancelling_a_task_ends_its_command_in_the_guest(guest: RunningVM) -> None:
    async def scenario(running: vm.RunningVM) -> None:
        task = asyncio.create_task(running.run("sleep 7654 & sleep 7654"))
        while "7654" not in (await running.run("ps")).stdout:
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while "7654" in (await running.run("ps")).stdout:
            await asyncio.sleep(0.05)

    drive(scenario, guest)


def test_the_loop_goes_on_while_an_act_waits(guest: RunningVM) -> None:
    async def scenario(running: vm.RunningVM) -> None:
        ticks = 0
        task = asyncio.create_task(running.run("sleep 1"))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.01)
        assert ticks > 5
        assert task.result().ok

    drive(scenario, guest)


def test_the_console_is_awaited(guest: RunningVM) -> None:
    async def scenario(running: vm.RunningVM) -> None:
        waiting = asyncio.create_task(running.console.expect(r"awaited (\d+)"))
        await running.run("echo awaited 77 > /dev/ttyS0")
        assert (await waiting)[1] == "77"
        assert "awaited 77" in running.console.text
        async with await running.spawn("head -n 1 /dev/ttyS0") as live:
            await asyncio.sleep(0.3)
            await running.console.write("typed\n")
            assert await live.stdout.readline() == b"typed\n"

    drive(scenario, guest)


def test_events_are_awaited(guest: RunningVM) -> None:
    async def scenario(running: vm.RunningVM) -> None:
        async with running.events("STOP", "RESUME") as events:
            await running.pause()
            await running.resume()
            assert [(await events.get(20)).name for _ in range(2)] == ["STOP", "RESUME"]

    drive(scenario, guest)


def test_a_vm_starts_and_ends_in_an_async_with() -> None:
    async def scenario() -> None:
        async with aio.start(IDLE) as running:
            assert await running.status() == "running"
            pid, waiting = running.pid, asyncio.create_task(running.console.expect("never"))
            await asyncio.sleep(0)
        assert not Path(f"/proc/{pid}").exists()
        assert running.exit is not None
        with pytest.raises(ClosedError):
            await waiting

    asyncio.run(scenario())


def test_a_vm_is_started_by_await() -> None:
    async def scenario() -> None:
        running = await aio.start(IDLE)
        end = await running.stop()
        assert end.reason == "host-qmp-quit"
        await running.close()
        assert re.search("RunningVM vm: host-qmp-quit", repr(running))

    asyncio.run(scenario())


def test_a_start_that_fails_raises() -> None:
    async def scenario() -> None:
        with pytest.raises(StartError):
            await aio.start(VM(boot=Firmware(), arguments=("-no-such-option",)))

    asyncio.run(scenario())


def test_a_cancelled_start_leaves_nothing() -> None:
    async def scenario() -> None:
        name = f"cancelled-{os.getpid()}"
        task = asyncio.ensure_future(_begin(VM(name=name, boot=Firmware(), accel="tcg")))
        await asyncio.sleep(0)  # it begins, on a thread of its own
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        deadline = time.monotonic() + 30
        while any(name in words for words in command_lines()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        assert not any(name in words for words in command_lines())

    asyncio.run(scenario())


async def _begin(described: VM) -> vm.RunningVM:
    return await aio.start(described)


def command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue
    return found
