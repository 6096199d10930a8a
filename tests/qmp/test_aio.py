"""The awaited monitor: the same names and signatures, and the same behaviour."""

from __future__ import annotations

import asyncio
import inspect
import threading

import pytest
from qmp_peers import DONE, STOP, needs_qemu, negotiate, peer, qemu

from pyvirt import aio
from pyvirt.errors import ClosedError, TimedOut
from pyvirt.qmp.flow import Command, OutOfTime, Until
from pyvirt.running.wire import events, job, monitor


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


# What both faces are made of, and what only one of them needs.
BENEATH = {
    "Monitor": ({"request", "submit", "unready", "waits", "hear", "why", "ended"}, {"of"}),
    "Events": ({"begin", "offer", "end", "what"}, set()),
    "Job": (set(), set()),
}

ATTRIBUTES = {"reconnected", "peer", "greeting", "schema", "ready", "names", "dropped"}


@pytest.mark.parametrize(
    ("blocking", "awaited"),
    [(monitor.Monitor, aio.Monitor), (events.Events, aio.Events), (job.Job, aio.Job)],
)
def test_both_faces_have_the_same_names_and_signatures(blocking, awaited):
    beneath, above = BENEATH[blocking.__name__]
    ours, theirs = public(blocking) - beneath - ATTRIBUTES, public(awaited) - above - ATTRIBUTES
    assert ours == theirs
    for name in ours:
        if not isinstance(inspect.getattr_static(blocking, name), property):
            assert _parameters(getattr(blocking, name)) == _parameters(getattr(awaited, name)), name
    if blocking is not events.Events:  # nobody but a monitor makes those
        assert _parameters(blocking) == _parameters(awaited)


def _parameters(callable_):
    parameters = inspect.signature(callable_).parameters.values()
    return [(one.name, one.kind, one.default) for one in parameters]


def stopping(sock):
    for _ in negotiate(sock):
        sock.sendall(STOP + DONE)


def with_chatty(test):
    """Run the coroutine function with a monitor that tells STOP before each answer."""

    def run():
        async def main(sock):
            async with await aio.Monitor.open(sock, timeout=10) as opened:
                await test(opened)

        with peer(stopping) as sock:
            asyncio.run(main(sock))

    return run


@with_chatty
async def test_commands_are_awaited(chatty):
    assert (await chatty.ready).version.qemu.major == 7
    assert await chatty.execute("a") == {}
    assert await chatty.fetch("a") == b" {}"
    assert await asyncio.gather(*(chatty.execute("a") for _ in range(50))) == [{}] * 50
    assert await chatty.begin(Command("a")) == {}
    assert chatty.unheard == 53


@with_chatty
async def test_events_are_awaited(chatty):
    async with chatty.events("STOP", size=2) as queue:
        for _ in range(3):
            await chatty.execute("a")
        assert (queue.dropped, len(queue)) == (1, 2)
        names = []
        async for event in queue:
            names.append(event.name)
            if len(names) == 2:
                break
        with pytest.raises(TimedOut, match=r"^STOP took longer than 0.01 s$"):
            await queue.get(0.01)
    assert [event async for event in queue] == []


@with_chatty
async def test_flows_are_awaited(chatty):
    def flow():
        yield Command("a")
        yield Until("STOP")
        try:
            yield Until("NEVER")
        except OutOfTime:
            undone.append((yield Command("undo")))
            raise

    undone = []
    with pytest.raises(TimedOut, match=r"^flow took longer than 0.05 s$"):
        await chatty.run(flow(), timeout=0.05)
    assert undone == [{}]


@with_chatty
async def test_a_cancelled_task_lets_its_flow_undo(chatty):
    def flow():
        try:
            yield Until("NEVER")
        finally:
            undone.append((yield Command("undo")))

    undone = []
    task = asyncio.create_task(chatty.run(flow()))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == [{}]
    assert await chatty.execute("a") == {}


def test_a_timed_out_command_leaves_the_stream_usable():
    def late(sock):
        asked = negotiate(sock)
        next(asked)
        next(asked)
        sock.sendall(b'{"return": "late"}{"return": "in time"}')
        list(asked)

    async def main(sock):
        async with await aio.Monitor.open(sock, timeout=10) as opened:
            with pytest.raises(TimedOut, match=r"^x-slow took longer than 0.05 s$"):
                await opened.execute("x-slow", timeout=0.05)
            assert await opened.execute("x-fast", timeout=10) == "in time"

    with peer(late) as sock:
        asyncio.run(main(sock))


def test_the_end_of_a_peer_reaches_all_who_wait():
    def hang_up(sock):
        next(negotiate(sock))

    async def main(sock):
        opened = await aio.Monitor.open(sock, timeout=10, explain=lambda: "its last words")
        async with opened:
            queue = opened.events()
            with pytest.raises(ClosedError, match="QEMU is closed: its last words"):
                await opened.execute("a")
            with pytest.raises(ClosedError):
                await queue.get()
            with pytest.raises(ClosedError):
                async for _ in queue:
                    pass

    with peer(hang_up) as sock:
        asyncio.run(main(sock))


def test_a_peer_that_never_greets_ends_in_time():
    async def main(sock):
        with pytest.raises(TimedOut, match="is there another"):
            await aio.Monitor.open(sock, timeout=0.05)

    with peer(lambda sock: sock.recv(1)) as sock:
        asyncio.run(main(sock))


def test_the_blocking_face_works_inside_a_running_event_loop():
    async def main(sock):
        with monitor.Monitor.open(sock, timeout=10) as opened:
            assert opened.execute("a") == {}
            assert await aio.Monitor.of(opened).execute("a") == {}

    with peer(stopping) as sock:
        asyncio.run(main(sock))


def test_a_slow_peer_does_not_hold_up_the_event_loop():
    go = threading.Event()

    def slow(sock):
        for _ in negotiate(sock):
            go.wait(30)
            sock.sendall(DONE)

    async def main(sock):
        async with await aio.Monitor.open(sock, timeout=10) as opened:
            waiting = asyncio.create_task(opened.execute("a", timeout=30))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            go.set()
            assert await waiting == {}

    with peer(slow) as sock:
        asyncio.run(main(sock))


@needs_qemu
def test_typed_commands_and_jobs_on_a_real_qemu():
    async def main(sock):
        async with await aio.Monitor.open(sock, timeout=30) as opened:
            assert opened.schema is None
            assert (await opened.qmp.query_status())["status"] == "prelaunch"
            assert "query_block" in dir(opened.qmp)
            for node in ("a", "b"):
                await opened.qmp.blockdev_add(driver="null-co", node_name=node, size=1 << 20)
            arguments = {"device": "a", "target": "b", "sync": "full"}
            backup = await aio.Job.start(opened, "blockdev-backup", arguments)
            assert (await backup).fraction == 1.0
            with pytest.raises(AttributeError):
                opened.qmp.no_such_command  # noqa: B018 - asking is the test

    with qemu() as (sock, _):
        asyncio.run(main(sock))


@needs_qemu
def test_connecting_is_awaited(tmp_path):
    chardev = f"socket,id=s,path={tmp_path}/qmp,server=on,wait=off"

    async def main():
        async with await aio.Monitor.connect(tmp_path / "qmp", timeout=30) as opened:
            assert (await opened.execute("query-status"))["status"] == "prelaunch"

    with qemu("-chardev", chardev, "-mon", "chardev=s,mode=control") as (first, _):
        monitor.Monitor.open(first, timeout=30).close()
        asyncio.run(main())
