"""Starting and ending VMs: how they ended is told apart, and nothing stays behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import (
    CPU,
    VM,
    Disk,
    Firmware,
    IOThread,
    RunningVM,
    SpecError,
    StartError,
    TimedOut,
    UnsupportedError,
)
from pyvirt.errors import ClosedError
from pyvirt.running.host.accel import prove
from pyvirt.running.waiting.loop import loop

pytestmark = needs_qemu

LIMIT = 20.0


def idle(**more: object) -> VM:
    """A VM that boots nothing: SeaBIOS finds no disk and waits."""
    return VM(boot=Firmware(), agents=(), memory="64M", accel="tcg", **more)  # type: ignore[arg-type]


@pytest.fixture
def running() -> RunningVM:
    with idle().start() as vm:
        yield vm  # type: ignore[misc]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def goes(pid: int) -> bool:
    """Whether the process ends within LIMIT seconds."""
    for _ in range(int(LIMIT / 0.01)):
        if not alive(pid):
            return True
        time.sleep(0.01)
    return False


def test_status_pause_and_resume(running: RunningVM) -> None:
    states = [running.status()]
    running.pause()
    states.append(running.status())
    running.resume()
    states.append(running.status())
    assert states == ["running", "paused", "running"]


def test_a_paused_vm_starts_stopped() -> None:
    with idle(paused=True).start() as vm:
        assert vm.status() == "prelaunch"
        vm.resume()
        assert vm.status() == "running"


def test_reset_is_heard(running: RunningVM) -> None:
    with running.events("RESET") as events:
        running.reset()
        assert events.get(LIMIT).data["reason"] == "host-qmp-system-reset"


def test_stop_is_an_end_that_was_asked_for(running: RunningVM) -> None:
    end = running.stop()
    assert (end.reason, end.process.code, end.process.signal) == ("host-qmp-quit", 0, None)
    assert running.exit == end


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGKILL, "killed"), (signal.SIGSEGV, "crashed"), (signal.SIGTERM, "host-signal")],
)
def test_ends_by_signal_are_told_apart(running: RunningVM, number: int, reason: str) -> None:
    os.kill(running.pid, number)
    end = running.wait(LIMIT)
    assert end.reason == reason
    assert end.process.signal == (None if number == signal.SIGTERM else number)


def test_who_waits_learns_of_the_end_at_once(running: RunningVM) -> None:
    threading.Timer(0.2, os.kill, (running.pid, signal.SIGSEGV)).start()
    with pytest.raises(ClosedError) as caught:
        running.wait_for(serial="this never comes", timeout=LIMIT)
    assert "crashed (killed by SIGSEGV)" in str(caught.value)


def test_waiting_for_the_end_has_a_limit(running: RunningVM) -> None:
    with pytest.raises(TimedOut) as caught:
        running.wait(0.05)
    assert str(caught.value).startswith("the end of vm took longer than 0.05 s")
    assert running.status() == "running"


def test_shutdown_that_nobody_hears_becomes_firm() -> None:
    with idle().start() as vm:
        assert vm.shutdown(timeout=0.2).reason == "host-qmp-quit"


def test_shutdown_that_is_not_firm_lets_the_guest_go_on(running: RunningVM) -> None:
    with pytest.raises(TimedOut):
        running.shutdown(timeout=0.1, firm=False)
    assert running.status() == "running"


def test_closing_twice_is_closing_once(running: RunningVM) -> None:
    directory = running._engine.directory
    running.close()
    running.close()
    assert running.exit is not None
    assert not directory.exists()


def test_what_is_asked_after_the_end_says_how_it_ended(running: RunningVM) -> None:
    running.stop()
    with pytest.raises(ClosedError) as caught:
        running.status()
    assert "host-qmp-quit" in str(caught.value)


def test_qemu_that_refuses_says_so_with_its_own_words() -> None:
    with pytest.raises(StartError) as caught:
        idle(arguments=["-device", "no-such-thing"]).start()
    assert "'no-such-thing' is not a valid device model name" in caught.value.words
    assert caught.value.program == "qemu-system-x86_64"


def test_an_image_that_is_missing_fails_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        idle(disks=[Disk(tmp_path / "missing.qcow2", bootindex=0)]).start()
    assert "missing.qcow2': No such file or directory" in caught.value.words


def test_a_qemu_that_is_not_there_is_named() -> None:
    with pytest.raises(UnsupportedError) as caught:
        idle(binary="qemu-system-nothing").start()
    assert "qemu-system-nothing" in str(caught.value)


def test_kvm_asked_for_and_not_proved_is_refused_with_the_reason() -> None:
    if prove().name == "kvm":
        pytest.skip("KVM runs guests here")
    with pytest.raises(UnsupportedError, match="KVM acceleration is not available in this host"):
        VM(accel="kvm", boot=Firmware()).start()


def test_two_parts_with_one_name_are_refused() -> None:
    with pytest.raises(SpecError) as caught:
        VM(disks=[Disk("a", id="data"), Disk("b", id="data")])
    assert str(caught.value) == "disks[1].id must be unique in a VM, got 'data'"


def test_a_forked_child_leaves_its_parents_guest_alone(running: RunningVM) -> None:
    child = os.fork()
    if child == 0:
        try:
            running.close()
            gc.collect()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert running.status() == "running"


def test_after_kill_9_of_the_parent_nothing_stays() -> None:
    script = """
import sys, time
from pyvirt import VM, Firmware
running = VM(boot=Firmware(), agents=(), memory="64M", accel="tcg").start()
print(running.pid, running._engine.directory, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        assert alive(int(pid))
        parent.kill()
    assert goes(int(pid))
    for _ in range(int(LIMIT / 0.02)):
        if not Path(directory).exists():
            break
        time.sleep(0.02)
    assert not Path(directory).exists()


def test_a_vm_that_nobody_closed_is_warned_of() -> None:
    running = idle().start()
    pid = running.pid
    running.itself = running  # type: ignore[attr-defined]
    del running
    with pytest.warns(ResourceWarning, match="was not closed"):
        gc.collect()
    os.kill(pid, signal.SIGKILL)
    assert goes(pid)


def held() -> tuple[set[str], int, set[str]]:
    """Our descriptors by what they lead to, threads, and temporary directories."""
    loop()
    gc.collect()
    fds = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:
            continue  # the descriptor of this very listing
    ours = {path.name for path in Path("/tmp").glob(f"pyvirt-{os.getpid()}-*")}
    return fds, threading.active_count(), ours


@pytest.mark.timeout(180)
def test_200_starts_and_closes_leave_nothing() -> None:
    def once() -> int:
        with idle().start() as vm:
            return vm.pid

    once()
    before = held()
    pids = [once() for _ in range(200)]
    assert held() == before
    assert not any(alive(pid) for pid in pids)


@pytest.mark.timeout(180)
def test_50_guests_from_8_threads() -> None:
    def once(number: int) -> tuple[int, str]:
        with idle(name=f"guest{number}").start() as vm:
            assert vm.status() == "running"
            return vm.pid, vm.stop().reason

    before = held()
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(once, range(50)))
    assert held() == before
    assert {reason for _, reason in ends} == {"host-qmp-quit"}
    assert len({pid for pid, _ in ends}) == 50
    assert not any(alive(pid) for pid, _ in ends)


def test_a_close_that_was_interrupted_is_finished_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = idle().start()
    pid, directory = running.pid, running._engine.directory

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running._engine, "_quit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        running.close()
    assert not alive(pid)
    monkeypatch.undo()
    running.close()
    assert not directory.exists()


def test_a_host_cpu_that_is_not_there_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"host CPU \(4000,\).*cpus.pins may name only 0"):
        idle(cpus=CPU(1, pins={0: 4000})).start()


def test_vcpus_and_iothreads_are_pinned() -> None:
    host = min(os.sched_getaffinity(0))
    vm = idle(cpus=CPU(2, pins={1: host}), iothreads=[IOThread("io0", pins=host)])
    with vm.start() as running:
        threads = {cpu["cpu-index"]: cpu["thread-id"] for cpu in running.qmp.query_cpus_fast()}
        [iothread] = running.qmp.query_iothreads()
        assert os.sched_getaffinity(threads[1]) == {host}
        assert os.sched_getaffinity(iothread["thread-id"]) == {host}
        assert os.sched_getaffinity(threads[0]) == os.sched_getaffinity(0)
        assert running.status() == "running"


def test_a_guest_that_stopped_answering_is_ended_all_the_same() -> None:
    with VM(memory="256M", accel="tcg").start() as running:
        running.wait_for(agent=True)
        running.pause()
        with pytest.raises(TimedOut, match="asking the guest to power off"):
            running.shutdown(timeout=0.2, firm=False)
        with pytest.raises(TimedOut, match="port 22"):
            running.wait_for(port=22, timeout=0.2)
        assert running.shutdown(timeout=0.2).reason == "host-qmp-quit"


def test_a_cpu_feature_that_qemu_does_not_know_is_said_before_a_start() -> None:
    with pytest.raises(UnsupportedError) as caught:
        idle(cpus=CPU(1, "qemu64", flags=["+avx3"])).start()
    assert str(caught.value).startswith("feature avx3 of CPU model qemu64 is not available in QEMU")
    with idle(cpus=CPU(1, "qemu64", flags=["+sse4_2", "-svm"])).start() as running:
        assert running.status() == "running"


def test_what_a_hung_guest_is_asked_has_its_limits(tmp_path: Path) -> None:
    with VM(memory="256M", accel="tcg").start() as running:
        running.wait_for(agent=True)
        running.pause()
        for act in (running.guest_info, running.freeze, running.thaw, running.set_time):
            with pytest.raises(TimedOut, match=r"in vm took longer than 0.1 s"):
                act(timeout=0.1)
        with pytest.raises(TimedOut, match="copying from /etc/passwd in vm"):
            running.get("/etc/passwd", tmp_path / "file", timeout=0.1)
        with pytest.raises(TimedOut, match="copying to /tmp/x in vm"):
            running.put(b"x" * (8 << 20), "/tmp/x", timeout=0.1)
        assert list(tmp_path.iterdir()) == []
        running.resume()
        assert running.run("echo on").stdout == "on\n"
