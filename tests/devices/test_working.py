"""Devices do what they are for: I/O ports are driven by hand, peers are real."""

from __future__ import annotations

import array
import os
import shutil
import signal
import socket
import struct
import tempfile
from pathlib import Path

import pytest
from support.parts import running
from support.ports import Ports
from support.qemu import Refused, needs_qemu

from pyvirt.devices import (
    DebugConsole,
    File,
    FwCfg,
    IvshmemDoorbell,
    Null,
    Parallel,
    Pipe,
    Pvpanic,
    RingBuffer,
    Serial,
    Tpm,
    VirtioFs,
    VirtioSerialPort,
    Vnc,
)

pytestmark = needs_qemu

COM1, LPT1, DEBUG, PANIC = 0x3F8, 0x378, 0xE9, 0x505


@pytest.fixture(scope="module")
def board():
    """A PC whose ports are at hand, with everything that a byte can be written to."""
    blob = bytes(range(256))
    parts = [
        Serial(),
        Serial(RingBuffer(size="4K")),
        Parallel(),
        DebugConsole(),
        Pvpanic("pvpanic"),
        FwCfg("opt/org.example/text", "a,b=c d é"),
        FwCfg("opt/org.example/bytes", content=blob),
    ]
    with Ports() as ports:
        words = (*ports.words, "-action", "panic=pause")
        with running(*parts, words=words, extra_fds=(ports.fd,)) as lab:
            yield lab, ports


def test_what_the_guest_writes_to_a_serial_port_is_in_the_log(board):
    lab, ports = board
    for letter in b"hello\n":
        ports.write(COM1, letter)
    assert lab.path("serial0-log").read_bytes() == b"hello\n"


def test_what_is_typed_at_a_captured_port_is_read_by_the_guest(board):
    lab, ports = board
    Path(f"{lab.path('serial0-input')}.in").write_bytes(b"y")
    while not ports.read(COM1 + 5) & 1:  # data ready
        pass
    assert ports.read(COM1) == ord("y")
    before = lab.path("serial0-log").stat().st_size
    ports.write(COM1, ord("!"))
    assert lab.path("serial0-log").read_bytes()[before:] == b"!"


def test_a_ring_buffer_keeps_what_was_written(board):
    lab, ports = board
    for letter in b"ring":
        ports.write(0x2F8, letter)
    assert lab.qemu.cmd("ringbuf-read", device="serial1-chardev", size=100) == "ring"


def test_the_debug_console_and_the_printer_are_captured(board):
    lab, ports = board
    ports.write(DEBUG, ord("D"))
    ports.write(LPT1, ord("P"))
    for strobe in (0x0C, 0x0D, 0x0C):
        ports.write(LPT1 + 2, strobe)
    assert lab.path("debugcon0-log").read_bytes() == b"D"
    assert lab.path("parallel0-log").read_bytes() == b"P"
    assert ports.read(DEBUG) == 0xE9


def test_fw_cfg_items_are_in_the_directory_with_their_bytes(board):
    _, ports = board
    directory = fw_cfg(ports)
    size, key = directory["opt/org.example/text"]
    assert ports.blob(key, size).decode() == "a,b=c d é"
    size, key = directory["opt/org.example/bytes"]
    assert ports.blob(key, size) == bytes(range(256))


def fw_cfg(ports: Ports) -> dict[str, tuple[int, int]]:
    """Size and key of each file in fw_cfg."""
    (count,) = struct.unpack(">I", ports.blob(0x19, 4))
    table = ports.blob(0x19, 4 + 64 * count)[4:]
    entries = (table[64 * number : 64 * number + 64] for number in range(count))
    rows = (struct.unpack(">IHxx56s", entry) for entry in entries)
    return {name.rstrip(b"\0").decode(): (size, key) for size, key, name in rows}


def test_a_panic_is_told(board):
    lab, ports = board
    ports.write(PANIC, 1)
    assert lab.qemu.wait("GUEST_PANICKED")["data"]["action"] == "pause"


@pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")
def test_a_tpm_ends_with_qemu_and_keeps_its_state():
    with tempfile.TemporaryDirectory(prefix="tpm, with a comma ") as state:
        for _ in range(2):
            with running(Tpm(state=Path(state))) as lab:
                (tpm,) = lab.qemu.cmd("query-tpm")
                assert tpm["model"] == "tpm-crb"
                swtpm = lab.companions["tpm0-swtpm"]
                assert swtpm.poll() is None
                os.kill(lab.qemu.process.pid, signal.SIGKILL)
                assert swtpm.wait(20) == 0
            assert "tpm2-00.permall" in os.listdir(state)


@pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")
def test_an_old_tpm():
    with running(Tpm(model="tpm-tis", version="1.2")) as lab:
        assert lab.qemu.cmd("query-tpm")[0]["model"] == "tpm-tis"
        lab.qemu.cmd("cont")
        assert lab.qemu.cmd("query-status")["running"]


def virtiofsd() -> str | None:
    return shutil.which("virtiofsd", path=f"{os.environ['PATH']}:/usr/lib/qemu:/usr/libexec")


@pytest.mark.skipif(virtiofsd() is None, reason="virtiofsd is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="this virtiofsd wants root for its namespaces")
def test_a_shared_folder_is_connected():
    with tempfile.TemporaryDirectory() as folder:
        part = VirtioFs(folder, "papers", sandbox="chroot", xattr=True, queue_size=256)
        shared = ("-object", "memory-backend-memfd,id=ram,size=128M,share=on")
        memory = ("-m", "128M", *shared, "-machine", "q35,memory-backend=ram")
        with running(part, words=memory) as lab:
            assert lab.qemu.get("fs0", "tag") == "papers"
            assert lab.companions["fs0-virtiofsd"].poll() is None


def test_a_doorbell_takes_memory_and_vectors_from_its_server():
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        path = f"{folder}/server, one"
        server.bind(path)
        server.listen(1)
        child = os.fork()
        if child == 0:  # A thread would not do: QEMU's start is waited for in this one.
            serve(server)
            os._exit(0)
        with running(IvshmemDoorbell(path, vectors=2)) as lab:
            assert lab.qemu.get("ivshmem0", "vectors") == 2
            assert lab.qemu.get("ivshmem0", "chardev") == "ivshmem0-chardev"
        os.waitpid(child, 0)


def serve(server: socket.socket) -> None:
    """Greet one peer as an ivshmem-server does (docs/specs/ivshmem-spec.rst), until it leaves."""
    peer, _ = server.accept()
    memory = os.memfd_create("ivshmem")
    os.ftruncate(memory, 1 << 20)
    peer.sendall(struct.pack("<qq", 0, 0))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))]
    peer.sendmsg([struct.pack("<q", -1)], rights)
    for _ in range(2):
        event = os.eventfd(0)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [event]))]
        peer.sendmsg([struct.pack("<q", 0)], rights)
    peer.recv(1)


def test_a_fifo_carries_a_serial_port(tmp_path):
    os.mkfifo(tmp_path / "port.in")
    os.mkfifo(tmp_path / "port.out")
    out = os.open(tmp_path / "port.out", os.O_RDWR)
    part = Serial(Pipe(tmp_path / "port"))
    with Ports() as ports, running(part, words=ports.words, extra_fds=(ports.fd,)):
        ports.write(COM1, ord("!"))
        assert os.read(out, 10) == b"!"
    os.close(out)


def test_two_devices_share_a_multiplexed_port(tmp_path):
    shared = Serial(File(tmp_path / "out", mux=True))
    other = Serial(Null(), index=1, properties={"chardev": "serial0-chardev"})
    with Ports() as ports, running(shared, other, words=ports.words, extra_fds=(ports.fd,)):
        ports.write(COM1, ord("1"))
        ports.write(0x2F8, ord("2"))
        assert (tmp_path / "out").read_bytes() == b"12"


def test_a_port_for_an_agent_has_our_end_of_a_socket():
    with running(VirtioSerialPort("org.example.agent")) as lab:
        ours = lab.sockets["port0-fd"]
        found = {c["label"]: c for c in lab.qemu.cmd("query-chardev")}["port0-chardev"]
        assert found["frontend-open"] is False
        lab.qemu.process.kill()
        ours.settimeout(20)
        assert ours.recv(1) == b""


def test_a_screen_asks_for_its_password():
    with running(Vnc(password="geheim")) as lab, socket.socket(socket.AF_UNIX) as viewer:
        viewer.settimeout(20)
        viewer.connect(str(lab.path("vnc0-socket")))
        assert viewer.recv(12) == b"RFB 003.008\n"
        viewer.sendall(b"RFB 003.008\n")
        assert viewer.recv(16) == b"\x01\x02"  # one way in: VNC authentication
        assert "geheim" not in " ".join(lab.qemu.words)
        with pytest.raises(Refused):
            lab.qemu.cmd("set_password", protocol="spice", password="x")
