"""The blocking monitor against peers that follow a script: dawdle, hang up, send nonsense."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import socket
import tempfile
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from qmp_peers import DONE, GREETING, STOP, negotiate, obedient, peer

from pyvirt.errors import ClosedError, CommandError, ProtocolError, TimedOut
from pyvirt.qmp.flow import Command, OutOfTime, Pause, Until
from pyvirt.qmp.protocol import AHEAD
from pyvirt.running.waiting.loop import loop
from pyvirt.running.wire.monitor import Monitor


def numbered(sock):
    """Answer the n-th command with n."""
    for number, _ in enumerate(negotiate(sock)):
        sock.sendall(b'{"return": %d}\r\n' % number)


@pytest.fixture
def monitor():
    with peer(numbered) as sock, Monitor.open(sock, timeout=10) as opened:
        yield opened


def stopping(sock):
    """Answer every command, and tell STOP before each answer."""
    for _ in negotiate(sock):
        sock.sendall(STOP + DONE)


@pytest.fixture
def chatty():
    with peer(stopping) as sock, Monitor.open(sock, timeout=10) as opened:
        yield opened


def test_a_monitor_greets_and_answers(monitor):
    assert monitor.greeting.version.qemu.major == 7
    assert monitor.ready.result() is monitor.greeting
    assert [monitor.execute("stop") for _ in range(3)] == [0, 1, 2]
    assert repr(monitor) == "<Monitor of QEMU 7.2.22>"


def test_commands_given_before_it_is_ready_wait():
    with peer(numbered) as sock, Monitor(sock) as early:
        assert early.execute("stop", timeout=10) == 0


def test_commands_of_many_threads_get_their_own_replies():
    def echo(sock):
        for asked in negotiate(sock):
            sock.sendall(b'{"return": ' + asked + b"}\r\n")

    def ask(number):
        name = f"x-{number}"
        return all(monitor.execute(name, timeout=30) == {"execute": name} for _ in range(50))

    with peer(echo) as sock, Monitor.open(sock) as monitor, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


def test_pipelined_futures_come_in_order(monitor):
    futures = [monitor.begin(Command("stop")) for _ in range(100)]
    assert [future.result(10) for future in futures] == list(range(100))


def test_a_timed_out_command_leaves_the_stream_usable():
    def late(sock):
        asked = negotiate(sock)
        next(asked)
        next(asked)
        sock.sendall(b'{"return": "late"}{"return": "in time"}')
        list(asked)

    with peer(late) as sock, Monitor.open(sock, timeout=10) as monitor:
        with pytest.raises(TimedOut) as caught:
            monitor.execute("x-slow", timeout=0.05)
        assert (caught.value.what, caught.value.seconds) == ("x-slow", 0.05)
        assert str(caught.value) == "x-slow took longer than 0.05 s"
        assert monitor.execute("x-fast", timeout=10) == "in time"


@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_a_timeout_may_be_as_long_as_one_likes(monitor, timeout):
    def flow():
        yield Command("a")
        with suppress(TimedOut):
            yield Until("NEVER", timeout=0.01)

    assert monitor.execute("a", timeout=timeout) == 0
    assert monitor.run(flow(), timeout=timeout) is None
    future = monitor.begin(Until("NEVER", timeout=timeout))
    assert monitor.execute("a") == 2
    assert future.cancel()


def test_a_cancelled_command_leaves_the_stream_usable(monitor):
    first, second = monitor.begin(Command("a")), monitor.begin(Command("b"))
    cancelled = first.cancel()
    assert second.result(10) == 1
    assert cancelled is False or first.cancelled()


def test_an_unanswered_future_can_be_cancelled():
    def silent(sock):
        list(negotiate(sock))

    with peer(silent) as sock, Monitor.open(sock, timeout=10) as monitor:
        future = monitor.begin(Command("a"))
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result(1)


def test_a_refused_command_says_why():
    def refuse(sock):
        for _ in negotiate(sock):
            sock.sendall(b'{"error": {"class": "CommandNotFound", "desc": "no x-y"}}\r\n')

    with peer(refuse) as sock, Monitor.open(sock, timeout=10) as monitor:
        with pytest.raises(CommandError) as caught:
            monitor.execute("x-y")
        error = caught.value
        assert (error.command, error.kind, error.desc) == ("x-y", "CommandNotFound", "no x-y")
        assert str(error) == "x-y: no x-y (CommandNotFound)"


@pytest.mark.parametrize(
    ("nonsense", "reason"),
    [
        pytest.param(b"Segfault\n", "sent a byte that no QMP message has there", id="text"),
        pytest.param(b'{"return": ' + b"[" * 1_000_000, "nested a message deeper than allowed",
                     id="nested"),
        pytest.param(b'{"return": "\xc3\x28"}', "sent bytes that are not UTF-8", id="utf8"),
        pytest.param(b'{"return": {}, "id": 1}', "answered with the unknown id 1", id="id"),
        pytest.param(b'{"return": "' + b"x" * (100 << 20), "sent a message longer than allowed",
                     id="long"),
    ],
)  # fmt: skip
def test_a_hostile_peer_ends_in_one_error_for_all(nonsense, reason):
    def hostile(sock):
        asked = negotiate(sock)
        next(asked)
        sock.sendall(nonsense)
        list(asked)

    with peer(hostile) as sock, Monitor.open(sock, timeout=10, size=8 << 20) as monitor:
        queue = monitor.events()
        futures = [monitor.begin(Command("a")) for _ in range(2)]
        errors = [future.exception(30) for future in futures]
        assert [type(error) for error in errors] == [ProtocolError] * 2
        assert errors[0].reason == errors[1].reason == reason
        with pytest.raises(ProtocolError):
            monitor.execute("b")
        with pytest.raises(ProtocolError):
            queue.get(10)
        assert monitor.closed
        assert sock.fileno() == -1


def test_an_answer_nobody_asked_for_ends_it():
    def eager(sock):
        asked = negotiate(sock)
        next(asked)
        sock.sendall(DONE + DONE)
        list(asked)

    with peer(eager) as sock, Monitor.open(sock, timeout=10) as monitor:
        queue = monitor.events()
        assert monitor.execute("a") == {}
        with pytest.raises(ProtocolError, match="answered a command that was never sent"):
            queue.get(10)


@pytest.mark.parametrize("end", range(0, len(GREETING + DONE) - 3, 7))
def test_a_peer_that_hangs_up_while_starting_is_noticed_at_once(end):
    def hang_up(sock):
        sock.sendall((GREETING + DONE)[:end])

    with peer(hang_up) as sock, pytest.raises((ClosedError, ProtocolError)):
        Monitor.open(sock, timeout=30, explain=lambda: "its last words")


def test_the_end_of_a_peer_is_explained():
    def hang_up(sock):
        next(negotiate(sock))

    with peer(hang_up) as sock, Monitor.open(sock, explain=lambda: "killed by SIGSEGV") as monitor:
        with pytest.raises(ClosedError) as caught:
            monitor.execute("a")
        assert (caught.value.peer, caught.value.why) == ("QEMU", "killed by SIGSEGV")
        assert str(caught.value) == "QEMU is closed: killed by SIGSEGV"


def test_a_peer_that_never_greets_ends_in_time():
    with peer(lambda sock: sock.recv(1)) as sock:
        with pytest.raises(TimedOut) as caught:
            Monitor.open(sock, timeout=0.05)
        assert str(caught.value) == (
            "QEMU's monitor took longer than 0.05 s: "
            "a monitor serves one client at a time, is there another?"
        )
        assert sock.fileno() == -1


def test_a_peer_that_dawdles_byte_by_byte_is_understood():
    def dawdle(sock):
        for byte in GREETING:
            sock.sendall(bytes([byte]))
        for _ in range(2):
            sock.recv(4096)
            for byte in DONE:
                sock.sendall(bytes([byte]))

    with peer(dawdle) as sock, Monitor.open(sock, timeout=30) as monitor:
        assert monitor.execute("a", timeout=30) == {}


def test_a_peer_that_does_not_read_delays_but_loses_nothing():
    go = threading.Event()

    def busy(sock):
        asked = negotiate(sock)
        go.wait(30)
        for number, one in enumerate(asked):
            assert len(one) > 100_000
            sock.sendall(b'{"return": %d}\r\n' % number)

    with peer(busy) as sock, Monitor.open(sock, timeout=10) as monitor:
        futures = [monitor.begin(Command("a", {"x": "y" * 100_000})) for _ in range(50)]
        go.set()
        assert [future.result(30) for future in futures] == list(range(50))


def test_closing_ends_all_waits_and_closes_the_descriptor():
    def silent(sock):
        list(negotiate(sock))

    with peer(silent) as sock:
        monitor = Monitor.open(sock, timeout=10)
        future, queue = monitor.begin(Command("a")), monitor.events("STOP")
        ended = threading.Thread(target=lambda: list(queue))
        ended.start()
        with ThreadPoolExecutor(1) as other:
            waiting = other.submit(monitor.execute, "b")
            time.sleep(0.05)
            monitor.close()
            monitor.close()
            for one in (future, waiting):
                assert str(one.exception(10)) == "QEMU is closed: closed by its owner"
        ended.join(10)
        assert not ended.is_alive()
        assert sock.fileno() == -1
        assert repr(monitor) == "<Monitor of QEMU closed: QEMU is closed: closed by its owner>"


def test_a_forgotten_monitor_warns_and_closes():
    with peer(obedient) as sock:
        with pytest.warns(ResourceWarning, match=r"<Monitor of QEMU 7.2.22> was not closed"):
            forget(sock)
        deadline = time.monotonic() + 10
        while sock.fileno() != -1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sock.fileno() == -1


def forget(sock):
    Monitor.open(sock, timeout=10)
    gc.collect()


def test_a_forked_child_cannot_use_it_and_does_not_end_it(monitor):
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            try:
                monitor.execute("a", timeout=5)
            except ClosedError as error:
                status = 0 if "forked" in error.why else 2
            monitor.close()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert monitor.execute("a") == 0


def test_waiting_in_a_callback_is_refused_instead_of_for_ever():
    go, refused = threading.Event(), threading.Event()

    def patient(sock):
        for _ in negotiate(sock):
            go.wait(30)
            sock.sendall(DONE)

    def callback(_):
        with pytest.raises(RuntimeError):
            monitor.execute("b")
        refused.set()

    with peer(patient) as sock, Monitor.open(sock, timeout=10) as monitor:
        future = monitor.begin(Command("a"))
        future.add_done_callback(callback)
        go.set()
        assert future.result(10) == {}
        assert refused.wait(10)


# Events -------------------------------------------------------------------------------------


def test_events_are_queued_for_those_who_ask(chatty):
    with chatty.events("STOP") as stops, chatty.events("RESUME") as resumes:
        chatty.execute("a")
        event = stops.get(10)
        assert (event.name, event.time) == ("STOP", 1.5)
        with pytest.raises(TimedOut) as caught:
            resumes.get(0.01)
        assert str(caught.value) == "RESUME took longer than 0.01 s"


def test_events_nobody_asked_for_are_counted(chatty):
    for _ in range(3):
        chatty.execute("a")
    assert chatty.unheard == 3


def test_a_full_queue_drops_the_oldest_and_counts():
    def count(sock):
        for number, _ in enumerate(negotiate(sock)):
            sock.sendall(b'{"event": "X", "data": {"n": %d}}' % number + DONE)

    with peer(count) as sock, Monitor.open(sock, timeout=10) as monitor:
        with monitor.events("X", size=2) as queue:
            for _ in range(5):
                monitor.execute("a")
            assert [queue.get(1).data["n"] for _ in range(2)] == [3, 4]
            assert (queue.dropped, len(queue)) == (3, 0)
        assert list(queue) == []


def test_events_can_be_matched_by_values_and_by_predicates(chatty):
    with chatty.events(match={"a": 1}) as none, chatty.events(match=lambda e: e.time > 1) as some:
        chatty.execute("a")
        assert some.get(10).name == "STOP"
        assert len(none) == 0


def test_a_predicate_that_fails_tells_its_author_only(chatty):
    with chatty.events(match=lambda e: e.data["missing"]) as broken, chatty.events() as sane:
        chatty.execute("a")
        with pytest.raises(KeyError):
            broken.get(10)
        assert sane.get(10).name == "STOP"
        with pytest.raises(KeyError):
            chatty.run(until_missing(), timeout=10)


def until_missing():
    yield Command("a")
    yield Until("STOP", lambda event: event.data["missing"])


def test_iterating_events_is_bounded_in_time(chatty):
    with chatty.events(timeout=0.05) as queue:
        chatty.execute("a")
        with pytest.raises(TimedOut):
            [event.name for event in queue]


def test_iterating_events_ends_with_an_error_when_the_peer_is_gone():
    def hang_up(sock):
        next(negotiate(sock))
        sock.sendall(STOP)

    with peer(hang_up) as sock, Monitor.open(sock, timeout=10) as monitor:
        queue, seen = monitor.events(), []
        monitor.begin(Command("a"))
        with pytest.raises(ClosedError):
            seen.extend(event.name for event in queue)


# Flows --------------------------------------------------------------------------------------


def test_a_flow_gets_results_events_and_errors(monitor):
    def flow():
        first = yield Command("a")
        yield Pause(0)
        try:
            yield Until("STOP", timeout=0.01)
        except TimedOut as error:
            return first, error.what

    assert monitor.run(flow(), timeout=10) == (0, "STOP")


def test_an_event_that_came_before_its_wait_is_not_missed(chatty):
    def flow():
        yield Command("a")
        yield Command("b")
        return [(yield Until("STOP")), (yield Until(("RESUME", "STOP")))]

    assert [event.name for event in chatty.run(flow(), timeout=10)] == ["STOP", "STOP"]


def test_each_event_answers_one_wait(chatty):
    def flow():
        yield Command("a")
        yield Until("STOP")
        yield Until("STOP", timeout=0.05)

    with pytest.raises(TimedOut, match=r"^STOP took longer than 0.05 s$"):
        chatty.run(flow(), timeout=10)


def test_a_flow_out_of_time_may_undo(monitor):
    undone = []

    def slow():
        try:
            yield Command("a")
            yield Until("NEVER")
        except OutOfTime:
            undone.append((yield Command("undo")))
            raise

    with pytest.raises(TimedOut) as caught:
        monitor.run(slow(), timeout=0.05)
    assert str(caught.value) == "slow took longer than 0.05 s"
    assert undone == [1]


def test_a_step_that_cannot_begin_is_thrown_into_the_flow(monitor):
    def flow():
        try:
            yield "not a step"
        except TypeError as error:
            return str(error)

    assert monitor.run(flow(), timeout=10) == "a flow cannot yield 'not a step'"


def test_an_interrupted_flow_is_closed_and_the_monitor_goes_on(monitor):
    closed = []

    def flow():
        try:
            yield Command("a")
            yield from interrupted()
        finally:
            closed.append(True)

    def interrupted():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        monitor.run(flow())
    assert closed == [True]
    assert monitor.execute("b") == 1


# Reconnecting -------------------------------------------------------------------------------


@pytest.fixture
def listener():
    """A Unix socket's address, longer than sun_path has room for, and its listening end."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory, "deep" * 30)
        folder.mkdir()
        fd = os.open(folder, os.O_PATH)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"/proc/self/fd/{fd}/qmp")
            sock.listen(1)
            sock.settimeout(30)
            yield folder / "qmp", sock
        os.close(fd)


def serve(sock, times):
    """Serve clients one after another; hang up on each after its second command."""
    for _ in range(times):
        client = sock.accept()[0]
        client.settimeout(30)
        with client:
            asked = negotiate(client)
            next(asked)
            client.sendall(DONE + STOP)
            next(asked, None)


def test_it_dials_again_when_asked_to(listener):
    address, sock = listener
    server = threading.Thread(target=serve, args=(sock, 2))
    server.start()
    with Monitor.connect(address, reconnect=True, timeout=10) as monitor:
        queue = monitor.events("STOP")
        assert monitor.execute("a", timeout=10) == {}
        with pytest.raises(ClosedError, match="QEMU is closed: it closed the connection"):
            monitor.execute("b", timeout=10)
        assert monitor.execute("c", timeout=10) == {}
        assert [queue.get(10).name, queue.get(10).name] == ["STOP", "STOP"]
        assert monitor.reconnected == 1
    server.join(30)
    assert not server.is_alive()


def test_it_stays_closed_otherwise(listener):
    address, sock = listener
    server = threading.Thread(target=serve, args=(sock, 1))
    server.start()
    with Monitor.connect(address, timeout=10) as monitor:
        monitor.execute("a", timeout=10)
        for _ in range(2):
            with pytest.raises(ClosedError):
                monitor.execute("b", timeout=10)
    server.join(30)


def test_a_monitor_that_nobody_serves_cannot_be_connected(tmp_path):
    with pytest.raises(FileNotFoundError):
        Monitor.connect(tmp_path / "none", timeout=1)


def test_nothing_is_left_in_the_loop():
    before = len(loop()._watches)
    for _ in range(20):
        with peer(obedient) as sock, Monitor.open(sock, timeout=10) as monitor:
            monitor.execute("a")
    assert len(loop()._watches) == before


def test_interrupts_never_break_the_stream():
    """Ctrl-C at any moment of many commands: each reply still belongs to its command."""
    main, ready, rounds = threading.main_thread().ident, threading.Event(), 150

    def echo(sock):
        for asked in negotiate(sock):
            sock.sendall(b'{"return": ' + asked + b"}\r\n")

    def interrupt():
        for number in range(rounds):
            ready.wait(30)
            ready.clear()
            time.sleep(number * 7 % 31 / 10_000)
            signal.pthread_kill(main, signal.SIGINT)

    def ask_for_ever():
        ready.set()
        for number in itertools.count():
            name = f"x-{number}"
            assert monitor.execute(name, timeout=30) == {"execute": name}

    pest = threading.Thread(target=interrupt)
    with peer(echo) as sock, Monitor.open(sock, timeout=10) as monitor:
        pest.start()
        for _ in range(rounds):
            with pytest.raises(KeyboardInterrupt):
                ask_for_ever()
        pest.join(30)
        assert not monitor.closed
        assert monitor.execute("x-last") == {"execute": "x-last"}


def test_the_beginning_of_the_next_command_is_sent_ahead():
    seen = bytearray()

    def watch(sock):
        sock.sendall(GREETING)
        while not seen.endswith(AHEAD):
            seen.extend(sock.recv(4096))
        sock.sendall(DONE)
        seen.extend(sock.recv(4096))
        sock.sendall(DONE)

    with peer(watch) as sock, Monitor.open(sock, timeout=10) as monitor:
        assert monitor.execute("stop", timeout=10) == {}
    assert bytes(seen) == b'{"execute":"qmp_capabilities"}{"execute":"stop"}{"execute":"'
