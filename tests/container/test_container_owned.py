"""Who owns a container: nothing of it outlives its owner, unless it was let go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.containers import needs_containers, traces

from pyvirt import Container, RunningContainer, SpecError
from pyvirt.container import Bind, Tmpfs
from pyvirt.errors import BusyError, ClosedError
from pyvirt.running.lxc.store import Store

pytestmark = [needs_containers, pytest.mark.timeout(240)]

OWNER = """
import sys, time
from pyvirt import Container, RunningContainer
from pyvirt.running.lxc.store import Store
running = RunningContainer.start(
    Container(name=sys.argv[2]), store=Store(sys.argv[1]), detach=sys.argv[3] == "detach"
)
running.run("sleep 1000 >/dev/null 2>&1 &")
if sys.argv[3] == "frozen":
    running.pause()
print(running.pid, flush=True)
time.sleep(1000)
"""


@pytest.fixture
def owner(store: Store) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a container in another process."""
    children: list[subprocess.Popen[str]] = []

    def begin(name: str, how: str = "") -> subprocess.Popen[str]:
        words = [sys.executable, "-c", OWNER, str(store.root), name, how]
        children.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        child.communicate()


def told(child: subprocess.Popen[str]) -> int:
    """The pid that the owner prints once its container runs."""
    assert child.stdout is not None
    return int(child.stdout.readline())


def soon(true: Callable[[], bool]) -> bool:
    limit = time.monotonic() + 60
    while not true() and time.monotonic() < limit:
        time.sleep(0.05)
    return true()


@pytest.mark.parametrize("how", ["", "frozen"])
def test_nothing_outlives_a_killed_owner(
    owner: Callable[..., subprocess.Popen[str]], store: Store, how: str
) -> None:
    name = f"orphan{how}"
    child = owner(name, how)
    first = told(child)
    child.kill()
    assert soon(lambda: traces(name, store) == [] and not Path(f"/proc/{first}").exists()), traces(
        name, store
    )


def test_nothing_outlives_an_owner_killed_while_it_starts(
    owner: Callable[..., subprocess.Popen[str]], store: Store
) -> None:
    child = owner("hasty")
    assert soon(lambda: store.place("hasty").joinpath("log").exists())
    child.kill()
    child.wait()
    assert soon(lambda: traces("hasty", store) == []), traces("hasty", store)


def test_one_that_was_let_go_is_found_by_name(
    owner: Callable[..., subprocess.Popen[str]], store: Store
) -> None:
    child = owner("free", "detach")
    first = told(child)
    child.kill()
    child.wait()
    assert "free" in store.names()
    with RunningContainer.attach("free", store=store) as running:
        assert running.pid == first
        assert running.container == Container(name="free")
        assert running.run("cat /proc/1/comm").stdout == "init\n"
        running.limit(pids=77)
        assert running.plug(Tmpfs("/mnt")) == "/mnt"
    assert Path(f"/proc/{first}").exists()
    again = RunningContainer.attach("free", store=store)
    again.destroy()
    assert again.exit is not None
    assert traces("free", store) == []
    with pytest.raises(SpecError) as caught:
        RunningContainer.attach("free", store=store)
    assert caught.value.field == "name"


def test_another_process_may_look_into_one_that_has_an_owner(
    owner: Callable[..., subprocess.Popen[str]], store: Store
) -> None:
    told(owner("watched"))
    with RunningContainer.attach("watched", store=store) as running:
        assert running.status() == "running"
        assert running.stats().pids
        running.stop()
        with pytest.raises(ClosedError):
            running.run("true")


def test_a_name_is_for_one(store: Store) -> None:
    with RunningContainer.start(Container(name="only"), store=store) as running:
        with pytest.raises(SpecError) as caught:
            RunningContainer.start(Container(name="only"), store=store)
        assert (caught.value.field, caught.value.value) == ("name", "only")
        assert running.run("true").ok
    assert traces("only", store) == []


def test_two_who_work_on_one_wait_or_are_told(store: Store) -> None:
    with RunningContainer.start(Container(name="wanted"), store=store) as running:
        with store.lock("wanted"):
            with pytest.raises(BusyError) as caught, store.lock("wanted", timeout=0.1):
                pass
            assert caught.value.holder == str(os.getpid())
            late = threading.Timer(0, lambda: running.limit(pids=99))
            late.start()
            assert late.is_alive()
        late.join(60)
        assert running.container.pids == 99


def test_a_forked_child_closes_nothing(store: Store) -> None:
    with RunningContainer.start(Container(), store=store) as running:
        child = os.fork()
        if child == 0:
            running.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert running.run("true").ok


def test_closing_twice_and_from_anywhere_is_closing_once(store: Store) -> None:
    running = RunningContainer.start(Container(), store=store)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: running.close(), range(4)))
    assert running.exit is not None
    assert running.exit.signal == signal.SIGKILL
    assert traces(running.name, store) == []


def test_this_process_stays_in_its_own_groups(store: Store) -> None:
    before = Path("/proc/self/cgroup").read_text()
    with RunningContainer.start(Container(), store=store):
        assert Path("/proc/self/cgroup").read_text() == before


def test_fifty_from_eight_threads_leave_nothing(store: Store) -> None:
    def one(number: int) -> tuple[str, str]:
        described = Container(
            name=f"crowd{number}", memory="32M", mounts=[Bind("/etc", "/host", readonly=True)]
        )
        with RunningContainer.start(described, store=store, timeout=120) as running:
            return running.name, running.run(["hostname"]).stdout

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(50)))
    assert results == [(f"crowd{n}", f"crowd{n}\n") for n in range(50)]
    assert traces("crowd*", store) == []
