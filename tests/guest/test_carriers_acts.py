"""What users ask of a running VM inside its guest, whoever answers there."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, ClosedError, Guest, Result, RunningVM, SpecError, TimedOut, UnsupportedError
from pyvirt.nic import Forward

pytestmark = [needs_qemu, pytest.mark.timeout(300)]

SOON = 60
MIB = 1 << 20


@pytest.fixture(scope="module")
def alone(udp_echo: Path) -> Iterator[RunningVM]:
    """A guest without a network, in which only pyvirt's agent answers."""
    guest = Guest(files={"/usr/bin/udp-echo": udp_echo})
    with VM(name="alone", memory="512M", boot=guest).start() as running:
        yield running


@pytest.fixture(scope="module")
def foreign() -> Iterator[RunningVM]:
    """A guest in which only QEMU's agent answers."""
    with VM(name="foreign", memory="256M", boot=Guest(qga=True), agents=["qga"]).start() as running:
        yield running


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Commands ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alone", "foreign"])
def test_run_keeps_its_promises(name: str, request: pytest.FixtureRequest) -> None:
    running: RunningVM = request.getfixturevalue(name)
    result: Result[bytes] = running.run(
        'cat; echo "$A" "$PWD" >&2; exit 9',
        input=b"\0\xff",
        env={"A": "b  c"},
        cwd="/tmp",
        encoding=None,
    )
    assert (result.stdout, result.stderr) == (b"\0\xff", b"b  c /tmp\n")
    assert (result.exit_code, result.signal, result.cut) == (9, None, False)
    killed = running.run("kill -SEGV $$")
    assert (killed.exit_code, killed.signal) == (None, signal.SIGSEGV)
    cut = running.run("head -c 3000000 /dev/zero", limit=1000)
    assert (len(cut.stdout), cut.cut) == (1000, True)
    assert running.run("id -u", user="nobody").stdout == "65534\n"


def test_a_gibibyte_of_output_is_whole_and_needs_little_memory(alone: RunningVM) -> None:
    block, count = os.urandom(MIB), 1024
    alone.put(block, "/tmp/block")
    expected = 0
    for _ in range(count):
        expected = zlib.crc32(block, expected)
    seen = [0, 0]

    def take(data: bytes) -> None:
        seen[0] += len(data)
        seen[1] = zlib.crc32(data, seen[1])

    before = resident(os.getpid()), resident(alone.pid)
    command = "i=0; while [ $i -lt 1024 ]; do cat /tmp/block; i=$((i+1)); done"
    result = alone.run(command, stdout=take)
    assert (result.exit_code, result.cut, seen) == (0, False, [count * MIB, expected])
    assert peak(os.getpid()) - before[0] < 64 * MIB
    assert peak(alone.pid) - before[1] < 96 * MIB


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; its peak counts anew from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return status(pid, "VmRSS")


def peak(pid: int) -> int:
    return status(pid, "VmHWM")


def status(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) << 10


def test_output_past_what_qemus_agent_keeps_is_marked(foreign: RunningVM) -> None:
    result = foreign.run("head -c 20000000 /dev/zero", encoding=None)
    assert result.cut
    assert len(result.stdout) == 16 * MIB
    got = bytearray()
    whole = foreign.run("head -c 20000000 /dev/zero", stdout=got.extend)
    assert (len(got), whole.cut) == (20_000_000, False)


def test_input_past_what_qemus_agent_takes_is_refused(foreign: RunningVM) -> None:
    with pytest.raises(SpecError) as caught:
        foreign.run("cat", input=bytes((32 << 20) + 1))
    assert caught.value.field == "input"
    assert "QEMU guest agent" in caught.value.reason


def test_a_command_has_a_terminal(alone: RunningVM, foreign: RunningVM) -> None:
    with alone.spawn('tty; stty size; read word; echo "<$word>"', pty=True) as process:
        assert re.match(rb"/dev/pts/\d+", process.stdout.readline())
        assert process.stdout.readline() == b"24 80\r\n"
        process.stdin.write(b"hello\n")
        until(lambda: b"<hello>" in process.stdout.readline(timeout=SOON))
        assert process.wait(SOON).ok
    with pytest.raises(UnsupportedError, match="a terminal"):
        foreign.spawn("tty", pty=True)


def test_a_terminal_has_a_size_and_job_control(alone: RunningVM) -> None:
    with alone.spawn(["sh"], pty=True) as process:
        process.resize(50, 132)
        process.stdin.write(b"stty size\n")
        until(lambda: process.stdout.readline(timeout=SOON) == b"50 132\r\n")
        process.stdin.write(b"sleep 1000\n")
        time.sleep(0.3)
        process.stdin.write(b"\x03echo after $?\n")
        until(lambda: b"after 130" in process.stdout.readline(timeout=SOON))


# Files -------------------------------------------------------------------------------------------


def test_a_large_file_goes_in_and_comes_out(alone: RunningVM, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    data = os.urandom(110 * MIB)
    source.write_bytes(data)
    seen: list[tuple[int, int | None]] = []
    assert alone.put(source, "/tmp/large", progress=lambda *at: seen.append(at)) == len(data)
    assert seen == sorted(seen)
    assert seen[-1] == (len(data), len(data))
    assert f"{zlib.crc32(data):08x}" in alone.run("crc32 /tmp/large").stdout
    seen.clear()
    assert alone.get("/tmp/large", target, progress=lambda *at: seen.append(at)) == len(data)
    assert target.read_bytes() == data
    assert seen[-1] == (len(data), len(data))
    alone.run("rm /tmp/large")


def test_a_tree_goes_in_and_comes_out(foreign: RunningVM, tmp_path: Path) -> None:
    (tmp_path / "a/deep").mkdir(parents=True)
    (tmp_path / "a/deep/file").write_bytes(os.urandom(3 * MIB))
    foreign.put(tmp_path / "a", "/tmp/tree")
    assert foreign.get("/tmp/tree", tmp_path / "b", tree=True) > 3 * MIB
    assert (tmp_path / "b/deep/file").read_bytes() == (tmp_path / "a/deep/file").read_bytes()


@pytest.mark.parametrize("name", ["alone", "foreign"])
def test_text_files(name: str, request: pytest.FixtureRequest) -> None:
    running: RunningVM = request.getfixturevalue(name)
    assert running.write_text("/tmp/text", "grüße\n", mode=0o600) == 8
    assert running.read_text("/tmp/text") == "grüße\n"
    buffer = io.BytesIO()
    running.get("/tmp/text", buffer)
    assert buffer.getvalue() == "grüße\n".encode()


# Facts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["pyvirt", "qga"])
def test_facts_of_a_guest(both: RunningVM, agent: str) -> None:
    carrier = both._engine.carriers[both.vm.channels.index(agent)]
    carrier.ready.result(SOON)
    info = carrier.info().result(SOON)
    assert (info.os["ID"], info.machine, info.hostname) == ("pyvirt", "x86_64", "pyvirt")
    assert info.os["PRETTY_NAME"] == "pyvirt default guest"
    card = next(one for one in info.interfaces if one.name == "eth0")
    assert card.mac.startswith("52:54:00")
    assert "10.0.2.15/24" in card.addresses
    disk = next(one for one in info.filesystems if one.mountpoint == "/mnt")
    assert (disk.type, disk.device) == ("ext4", "/dev/vda")
    assert disk.total is not None
    assert disk.used is not None
    assert 16 * MIB < disk.total < 32 * MIB
    assert 0 < disk.used < disk.total
    assert info.users == ()
    assert info.time is not None
    assert abs(info.time - time.time()) < SOON
    assert info.uptime is not None
    assert 0 < info.uptime < 3600


@pytest.mark.parametrize("agent", ["pyvirt", "qga"])
def test_a_frozen_file_system_holds_writers_back(both: RunningVM, agent: str) -> None:
    carrier = both._engine.carriers[both.vm.channels.index(agent)]
    carrier.ready.result(SOON)
    with both.spawn("read go; echo written > /mnt/file; echo done") as writer:
        assert carrier.fsfreeze().result(SOON) >= 1
        writer.stdin.write(b"\n")
        with pytest.raises(TimeoutError):
            writer.stdout.readline(timeout=1)
        assert carrier.fsthaw().result(SOON) >= 1
        assert writer.stdout.readline(timeout=SOON) == b"done\n"
    assert both.run("cat /mnt/file").stdout == "written\n"


def test_freeze_and_thaw_of_a_vm(both: RunningVM) -> None:
    assert both.freeze() >= 1
    assert both.thaw() >= 1


@pytest.mark.parametrize("name", ["alone", "foreign"])
def test_the_clock_is_set(name: str, request: pytest.FixtureRequest) -> None:
    running: RunningVM = request.getfixturevalue(name)
    running.set_time(1_000_000_000)
    assert running.run("date -u +%Y").stdout == "2001\n"
    running.set_time()
    assert abs(float(running.run("date +%s").stdout) - time.time()) < SOON
    assert 0 < running.ping() < SOON


# Ports -------------------------------------------------------------------------------------------


def answers(forward: Forward, data: bytes) -> bytes:
    """What comes back for a datagram; lost ones are sent again."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", forward.host))
        client.settimeout(2)
        for _ in range(10):
            client.send(data)
            try:
                return client.recv(1 << 16)
            except TimeoutError:
                continue
    raise AssertionError("no answer")


@pytest.mark.parametrize("name", ["both", "alone"])
def test_udp_ports_are_forwarded(name: str, request: pytest.FixtureRequest) -> None:
    running: RunningVM = request.getfixturevalue(name)
    with running.spawn(["udp-echo", "5353"]):
        running.wait_for(port=5353, proto="udp", timeout=SOON)
        forward = running.forward(5353, proto="udp")
        assert (forward.guest, forward.proto) == (5353, "udp")
        assert answers(forward, b"one") == b"one"
        assert answers(forward, bytes(1400)) == bytes(1400)
        running.unforward(forward)


@pytest.mark.parametrize("name", ["both", "alone"])
def test_tcp_ports_are_forwarded(name: str, request: pytest.FixtureRequest) -> None:
    running: RunningVM = request.getfixturevalue(name)
    with running.spawn("sleep 0.3; while :; do nc -l -p 7777 -e cat; done"):
        running.wait_for(port=7777, timeout=SOON)
        forward = running.forward(7777)
        data = os.urandom(2 * MIB)
        with socket.create_connection(("127.0.0.1", forward.host), SOON) as connection:
            for at in range(0, len(data), 1 << 16):
                connection.sendall(data[at : at + (1 << 16)])
                back = b""
                while len(back) < 1 << 16:
                    back += connection.recv(1 << 16)
                assert back == data[at : at + (1 << 16)]
        running.unforward(forward)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", forward.host), 5)


def test_what_is_not_forwarded_cannot_be_ended(alone: RunningVM) -> None:
    with pytest.raises(SpecError) as caught:
        alone.unforward(Forward(1, 2))
    assert (caught.value.field, caught.value.value) == ("forward", "tcp:127.0.0.1:1")


def test_without_a_network_and_an_agent_nothing_is_forwarded(foreign: RunningVM) -> None:
    with pytest.raises(UnsupportedError) as caught:
        foreign.forward(22)
    assert str(caught.value) == (
        "a way to forward a port is not available in VM foreign; "
        "give it a Nic with a User back end, or agents=['pyvirt'] and that agent"
    )


def test_a_port_that_does_not_come_is_told(alone: RunningVM) -> None:
    with pytest.raises(TimedOut) as caught:
        alone.wait_for(port=9, timeout=0.3)
    assert "tcp port 9" in caught.value.what


# The end -----------------------------------------------------------------------------------------


def test_forwards_end_with_the_vm_and_waits_tell_why() -> None:
    with VM(memory="256M").start() as running:
        running.wait_for(agent=True)
        forward = running.forward(80)
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(ClosedError, match="SIGKILL"):
            running.run("sleep 1000")
        until(lambda: running.exit is not None)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", forward.host), 5)
