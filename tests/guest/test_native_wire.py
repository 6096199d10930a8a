"""pyvirt's agent as a process: what only it can do, and what a bad host can do to it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from agents import AGENT, native_carrier, native_process
from carrier_suite import SOON, wait_for

from pyvirt.errors import ClosedError, GuestError, ProtocolError
from pyvirt.guest import protocol
from pyvirt.guest.protocol import PREAMBLE, Decoder, Fields, Kind, Tag
from pyvirt.running.agents.native import NativeAgent


@pytest.fixture(scope="module")
def carrier():
    with native_carrier() as carrier:
        yield carrier


# What only it can do


def test_hello_tells_of_the_guest(carrier):
    carrier.ready.result(SOON)
    assert carrier.hello.kernel == os.uname().release
    assert carrier.hello.version == 1


def test_any_bytes_can_be_words(carrier):
    words = ["printf", "%s", "ü\udcff\n"]
    assert carrier.run(words, encoding=None).result(SOON).stdout == b"\xc3\xbc\xff\n"


def test_terminal(carrier):
    with carrier.spawn("tty; stty size; read x; stty size; cat", pty=True).result(SOON) as process:
        assert process.stdout.readline().startswith(b"/dev/pts/")
        assert process.stdout.readline() == b"24 80\r\n"
        process.resize(50, 132)
        process.stdin.write(b"hello\n")
        assert process.stdout.readline() == b"hello\r\n"  # its echo
        assert process.stdout.readline() == b"50 132\r\n"
        process.stdin.close()  # typed as ^D
        assert process.wait(SOON).exit_code == 0
        assert process.stderr.read() == b""


def test_user(carrier):
    if os.getuid() != 0:
        pytest.skip("needs root to become somebody else")
    script = "id -un; id -gn; echo $HOME $USER"
    result = carrier.run(script, user="daemon").result(SOON).check()
    assert result.stdout == "daemon\ndaemon\n/usr/sbin daemon\n"
    by_number = carrier.run("id -u", user="1").result(SOON)
    assert by_number.stdout == "1\n"
    with pytest.raises(GuestError) as caught:
        carrier.run("id", user="nobody-knows").result(SOON)
    assert caught.value.what == "nobody-knows"


def test_a_gigabyte_through_a_sink_in_bounded_memory(carrier):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew; see proc(5)
    before, count = peak(), 0

    def sink(data):
        nonlocal count
        count += len(data)

    carrier.run("dd if=/dev/zero bs=1M count=1024", stdout=sink).result(SOON).check()
    assert count == 1 << 30
    assert peak() - before < 32 << 20


def peak() -> int:
    """Most memory that this process had, in bytes."""
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) << 10


def test_a_slow_reader_holds_the_command_back(carrier, tmp_path):
    log = tmp_path / "log"
    script = f"for i in 1 2 3 4 5 6 7 8; do head -c 1000000 /dev/zero; echo $i >>'{log}'; done"
    with carrier.spawn(script).result(SOON) as process:
        time.sleep(0.3)
        assert len(log.read_text().split()) < 3 if log.exists() else True
        assert carrier.run("echo others go on").result(SOON).ok
        assert len(process.stdout.read()) == 8_000_000
        assert process.wait(SOON).ok


def test_a_slow_command_holds_the_writer_back(carrier):
    with carrier.spawn("sleep 0.3; wc -c").result(SOON) as process:
        sending = process.stdin.send(bytes(4_000_000))
        time.sleep(0.1)
        assert not sending.done()
        assert carrier.run("echo others go on").result(SOON).ok
        sending.result(SOON)
        process.stdin.close()
        assert process.stdout.read() == b"4000000\n"


def test_writing_to_a_command_that_stopped_reading(carrier):
    with carrier.spawn("exec 0<&-; echo closed; sleep 1000").result(SOON) as process:
        assert process.stdout.readline() == b"closed\n"
        with pytest.raises(ClosedError) as caught:
            process.stdin.write(bytes(1_000_000), SOON)
        assert str(caught.value) == "the command's input is closed: nobody reads it"


@pytest.mark.parametrize("family", ["tcp", "tcp6", "unix"])
def test_connection_to_a_port_in_the_guest(carrier, tmp_path, family):
    server, port, host = listen(family, tmp_path)
    with server:
        threading.Thread(target=echo_upper, args=(server,), daemon=True).start()
        protocol = "unix" if family == "unix" else "tcp"
        with carrier.connect(port, host=host, protocol=protocol).result(SOON) as link:
            link.stdin.write(b"hello")
            assert link.stdout.read(5) == b"HELLO"
            link.stdin.write(b"x" * 1_000_000)
            link.stdin.close()
            assert link.stdout.read() == b"X" * 1_000_000


def listen(family, folder):
    if family == "unix":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(folder / "s"))
        server.listen()
        return server, 0, str(folder / "s")
    address = "::1" if family == "tcp6" else "127.0.0.1"
    kind = socket.AF_INET6 if family == "tcp6" else socket.AF_INET
    server = socket.create_server((address, 0), family=kind)
    return server, server.getsockname()[1], address


def echo_upper(server):
    with server.accept()[0] as peer:
        while data := peer.recv(65536):
            peer.sendall(data.upper())


def test_datagrams_keep_their_borders(carrier):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(SOON)
        link = carrier.connect(server.getsockname()[1], protocol="udp").result(SOON)
        with link:
            link.stdin.write(b"one")
            link.stdin.write(b"two")
            data, peer = server.recvfrom(100)
            assert (data, server.recv(100)) == (b"one", b"two")
            server.sendto(b"back", peer)
            assert link.stdout.chunk().result(SOON) == b"back"


def test_connection_that_is_refused(carrier):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(GuestError) as caught:
            carrier.connect(unused.getsockname()[1]).result(SOON)
    assert caught.value.reason == "Connection refused"


def test_listening_is_seen(carrier):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert carrier.listening(port).result(SOON)
        assert not carrier.listening(port, "udp").result(SOON)


def test_cut_off_transfer_leaves_nothing(tmp_path):
    target = tmp_path / "target"
    with native_carrier() as carrier:
        reader, writer = os.pipe()
        with open(reader, "rb", buffering=0) as source, open(writer, "wb", buffering=0) as feed:
            future = carrier.put(source, str(target))
            feed.write(b"x" * 50_000)
            carrier.ping().result(SOON)
            carrier.close()
            with pytest.raises(ClosedError):
                future.result(SOON)
            feed.close()
    deadline = time.monotonic() + SOON
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline


# What a bad host can do to it


class Raw:
    """The host's end, one frame at a time."""

    def __init__(self, sock):
        self.sock, self.decoder, self.frames = sock, Decoder(), []
        sock.settimeout(SOON)

    def hello(self, nonce=b"n" * 8):
        self.sock.sendall(protocol.hello(nonce, 1 << 20))
        kept, found = b"", None
        while found is None:
            data = self.sock.recv(65536)
            assert data
            found, done = protocol.find_hello(kept + data, nonce)
            kept = (kept + data)[done:]
        self.decoder = Decoder()
        self.frames = self.decoder.feed(kept)
        return found

    def send(self, kind, stream=0, channel=0, payload=b"", pairs=()):
        self.sock.sendall(protocol.encode(kind, stream, channel, payload + protocol.fields(pairs)))

    def next(self):
        while not self.frames:
            data = self.sock.recv(65536)
            assert data
            self.frames += self.decoder.feed(data)
        return self.frames.pop(0)

    def until(self, kind):
        while (frame := self.next()).kind != kind:
            pass
        return frame

    def alive(self):
        self.hello(os.urandom(8))
        self.send(Kind.PING, payload=b"?")
        assert self.next() == (Kind.PONG, 0, 0, b"?")


@pytest.fixture
def raw():
    with native_process() as (_, sock):
        yield Raw(sock)


def shell(script):
    return [(Tag.SHELL, script)]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(bytes(1 << 20), id="zeros"),
        pytest.param(b"\xff" * 100_000, id="ones"),
        pytest.param(PREAMBLE * 1000, id="preambles"),
        pytest.param(protocol.encode(Kind.HELLO, 0, 0, b"junk"), id="hello-again"),
        pytest.param(protocol.encode(Kind.PONG, 0, 0, b""), id="pong"),
        pytest.param(protocol.encode(Kind.PING, 0, 0, bytes(65)), id="long-ping"),
        pytest.param(protocol.encode(Kind.EXEC, 0, 0, b""), id="stream-zero"),
        pytest.param(protocol.encode(Kind.EXEC, 9, 0, b"\1\2"), id="cut-fields"),
        pytest.param(protocol.encode(Kind.DATA, 5, 0, b"x"), id="future-stream"),
        pytest.param(protocol.encode(Kind.CREDIT, 5, 0, b"x"), id="short-credit"),
        pytest.param((1 << 31).to_bytes(4, "little") + bytes(8), id="long-frame"),
    ],
)
def test_nonsense_ends_the_session_and_the_next_one_works(raw, bad):
    raw.hello()
    raw.sock.sendall(bad)
    raw.alive()


def test_a_host_cut_off_inside_a_frame_starts_again(raw):
    raw.hello()
    raw.sock.sendall(protocol.encode(Kind.DATA, 1, 0, bytes(200_000))[:1000])
    raw.sock.sendall(bytes(protocol.PAYLOAD + 12))
    raw.alive()


def test_random_frames_never_end_it():
    """Every kind with every channel, to streams that live, lived and never were."""
    random_ = random.Random(5)
    # Nothing that acts on the machine: no EXEC of what is not written here, no SHUTDOWN.
    kinds = [kind for kind in Kind if kind not in (Kind.EXEC, Kind.SHUTDOWN, Kind.CONNECT)]
    with native_process() as (process, sock):
        raw = Raw(sock)
        for _ in range(60):
            raw.hello(random_.randbytes(8))
            stream = 0
            for _ in range(20):
                if random_.random() < 0.3:
                    stream += 1
                    script = random_.choice(["cat", "true", "echo x", "exec 0<&-; echo x"])
                    raw.send(Kind.EXEC, stream, pairs=shell(script))
                else:
                    payload = random_.randbytes(random_.choice([0, 1, 4, 4, 60]))
                    kind = random_.choice(kinds)
                    if kind == Kind.SIGNAL:
                        payload = random_.choice([9, 15, 0, 1000]).to_bytes(4, "little")
                    number = random_.randint(0, stream + 1)
                    raw.send(kind, number, random_.randint(0, 2), payload)
        raw.alive()
        assert process.poll() is None


def test_more_input_than_was_granted_ends_only_that_stream(raw):
    raw.hello()
    raw.send(Kind.EXEC, 1, pairs=shell("sleep 1000"))
    for _ in range(3):
        raw.send(Kind.DATA, 1, 0, bytes(200_000))
    frame = raw.until(Kind.EXITED)
    assert Fields(frame.payload).number(Tag.SIGNAL) == signal.SIGKILL
    raw.until(Kind.END)
    raw.send(Kind.PING, payload=b"!")
    assert raw.until(Kind.PONG).payload == b"!"


def test_too_many_streams_are_refused(raw):
    raw.hello()
    for number in range(1, 130):
        raw.send(Kind.EXEC, number, pairs=shell("sleep 1000"))
    fields = Fields(raw.until(Kind.FAILED).payload)
    assert fields.number(Tag.ERRNO) == 24  # EMFILE


def test_text_with_a_zero_is_refused(raw):
    raw.hello()
    raw.send(Kind.EXEC, 1, pairs=[(Tag.ARG, b"echo"), (Tag.ARG, b"a\0b")])
    assert Fields(raw.until(Kind.FAILED).payload).number(Tag.ERRNO) == 22  # EINVAL


def test_a_host_that_only_asks_and_never_reads_is_held_back(raw):
    raw.hello()
    ping = protocol.encode(Kind.PING, 0, 0, bytes(64)) * 1000
    raw.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        raw.sock.sendall(ping * 200)


def test_a_new_hello_ends_what_the_old_session_started(raw, tmp_path):
    mark = tmp_path / "pid"
    raw.hello()
    raw.send(Kind.EXEC, 1, pairs=shell(f"echo $$ >'{mark}.new'; mv '{mark}.new' '{mark}'; cat"))
    deadline = time.monotonic() + SOON
    while not mark.exists():
        assert time.monotonic() < deadline
    raw.alive()
    while Path(f"/proc/{mark.read_text().strip()}").exists():
        assert time.monotonic() < deadline


def test_lost_connection_ends_its_commands(tmp_path):
    with native_carrier() as carrier:
        mark = tmp_path / "pid"
        carrier.run(f"echo $$ >'{mark}'; exec sleep 1000")
        wait_for(carrier, f"test -s '{mark}'")
        carrier.close()
        deadline = time.monotonic() + SOON
        while Path(f"/proc/{mark.read_text().strip()}").exists():
            assert time.monotonic() < deadline


# What its end does to us


def test_death_of_the_agent_fails_everything_with_a_reason():
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [AGENT, "--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
    carrier = NativeAgent(ours, lambda: "QEMU was killed", peer="guest")
    command, ping = carrier.run("sleep 5"), carrier.ping()
    ping.result(SOON)
    process.kill()
    process.wait(SOON)
    with pytest.raises(ClosedError) as caught:
        command.result(SOON)
    assert str(caught.value) == "guest is closed: QEMU was killed"
    with pytest.raises(ClosedError):
        carrier.ping()


def test_a_guest_that_sends_junk_is_dropped():
    ours, theirs = socket.socketpair()
    with theirs:
        carrier = NativeAgent(ours, lambda: "closed")
        nonce = Fields(theirs.recv(4096)[len(PREAMBLE) + 12 :]).all(Tag.NONCE)[0]
        pairs = [(Tag.VERSION, 1), (Tag.NONCE, nonce), (Tag.WINDOW, 1000)]
        theirs.sendall(PREAMBLE + protocol.encode(Kind.HELLO, 0, 0, protocol.fields(pairs)))
        carrier.ready.result(SOON)
        ping = carrier.ping()
        theirs.sendall(b"\xee" * 100)
        with pytest.raises(ProtocolError):
            ping.result(SOON)


def test_interrupted_carrier_starts_again():
    with native_carrier() as carrier:
        carrier.ready.result(SOON)
        command = carrier.run("sleep 1000")
        carrier.interrupt(ClosedError("guest", "it was reset"))
        with pytest.raises(ClosedError, match="it was reset"):
            command.result(SOON)
        carrier.ready.result(SOON)
        assert carrier.run("echo again").result(SOON).stdout == "again\n"


def test_forked_child_cannot_use_it(carrier):
    carrier.ready.result(SOON)
    pid = os.fork()
    if pid == 0:
        try:
            carrier.ping()
        except ClosedError:
            carrier.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert carrier.ping().result(SOON) > 0
