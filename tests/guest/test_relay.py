"""Ports forwarded through the native agent: a real agent on this host, real sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from agents import native_carrier

from pyvirt.errors import ClosedError
from pyvirt.nic import Forward
from pyvirt.running.agents.native import NativeAgent
from pyvirt.running.relay import Relay, base, open_relay, udp

LIMIT = 30.0


@pytest.fixture(scope="module")
def agent() -> Iterator[NativeAgent]:
    with native_carrier() as carrier:
        yield carrier


@contextmanager
def forwarded(agent: NativeAgent, port: int, proto: str = "tcp") -> Iterator[Relay]:
    dial = partial(agent.dial, port=port, protocol=proto)
    relay = open_relay(Forward(0, port, proto), dial)
    try:
        yield relay
    finally:
        relay.close()


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server for TCP connections, each on a thread; its port."""

    def accept() -> None:
        while True:
            try:
                connection = server.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(LIMIT)


def echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def connect(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.forward.host), LIMIT)


def whole(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_reset(relay: Relay) -> bool:
    try:
        with connect(relay) as connection:
            return connection.recv(1) == b"never"
    except ConnectionResetError:
        return True


def refused(relay: Relay) -> bool:
    try:
        connect(relay).close()
    except ConnectionRefusedError:
        return True
    return False


def test_many_bytes_go_both_ways_and_ends_are_half(agent: NativeAgent) -> None:
    data = os.urandom(5 << 20)
    with serving(echo) as port, forwarded(agent, port) as relay, connect(relay) as connection:
        assert relay.forward == Forward(relay.forward.host, port)

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        assert whole(connection) == data
        thread.join(LIMIT)


def test_the_server_may_end_first(agent: NativeAgent) -> None:
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.sendall(b"bye")
            connection.shutdown(socket.SHUT_WR)
            heard.append(whole(connection))

    with serving(serve) as port, forwarded(agent, port) as relay, connect(relay) as connection:
        assert whole(connection) == b"bye"
        connection.sendall(b"still there")
        connection.shutdown(socket.SHUT_WR)
        until(lambda: heard == [b"still there"])


def test_a_port_where_nobody_listens_resets(agent: NativeAgent) -> None:
    with serving(echo) as port:
        pass
    with forwarded(agent, port) as relay:
        assert is_reset(relay)


def test_who_does_not_read_is_held_back(agent: NativeAgent) -> None:
    sent = 0

    def serve(connection: socket.socket) -> None:
        nonlocal sent
        with connection:
            connection.settimeout(0.5)
            try:
                while True:
                    sent += connection.send(bytes(1 << 16))
            except TimeoutError:
                return

    with serving(serve) as port, forwarded(agent, port) as relay, connect(relay) as connection:
        until(lambda: sent > 0)
        last = -1
        while sent != last:
            last = sent
            time.sleep(1)
        assert sent < 64 << 20
        assert len(whole(connection)) == sent


def test_more_connections_than_fit_wait_for_their_turn(agent: NativeAgent) -> None:
    with serving(echo) as port, forwarded(agent, port) as relay:
        held = [connect(relay) for _ in range(base.MOST + 5)]
        for connection in held:
            connection.sendall(b"x")
        for connection in held:
            assert connection.recv(1) == b"x"
            connection.close()


def test_closing_ends_connections_and_frees_the_port(agent: NativeAgent) -> None:
    with serving(echo) as port, forwarded(agent, port) as relay:
        connection = connect(relay)
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        relay.close()
        with connection, pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert refused(relay)
        relay.close()


def test_a_taken_port_is_refused(agent: NativeAgent) -> None:
    with serving(echo) as port, pytest.raises(OSError, match="in use"):
        open_relay(Forward(port, port), partial(agent.dial, port=port))


def test_an_interruption_resets_what_went_on_and_the_port_stays(agent: NativeAgent) -> None:
    with serving(echo) as port, forwarded(agent, port) as relay:
        with connect(relay) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            agent.interrupt(ClosedError("the guest", "it was reset"))
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        with connect(relay) as connection:
            connection.sendall(b"again")
            assert connection.recv(5) == b"again"


def test_without_an_agent_connections_are_reset() -> None:
    with native_carrier() as own, serving(echo) as port, forwarded(own, port) as relay:
        own.close()
        assert is_reset(relay)


def test_a_forked_child_lets_go_of_the_port(agent: NativeAgent) -> None:
    with serving(echo) as port, forwarded(agent, port) as relay:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        relay.close()
        try:
            until(lambda: refused(relay))  # once the child has begun
        finally:
            os.close(writer)
            os.close(reader)
            os.waitpid(child, 0)


# Datagrams ---------------------------------------------------------------------------------------


@contextmanager
def echoing_datagrams() -> Iterator[tuple[int, set[tuple[str, int]]]]:
    """A server that returns each datagram; its port, and whom it heard."""
    heard: set[tuple[str, int]] = set()

    def serve() -> None:
        while True:
            data, address = server.recvfrom(1 << 16)
            if data == b"end":
                return
            heard.add(address)
            server.sendto(data, address)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        with peer(server.getsockname()[1]) as client:
            client.send(b"end")
        thread.join(LIMIT)


def peer(port: int) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(LIMIT)
    client.connect(("127.0.0.1", port))
    return client


@contextmanager
def datagrams_through(agent: NativeAgent) -> Iterator[socket.socket]:
    """A socket whose datagrams come back through the agent."""
    with (
        echoing_datagrams() as (port, _),
        forwarded(agent, port, "udp") as relay,
        peer(relay.forward.host) as client,
    ):
        yield client


def test_datagrams_stay_whole_of_any_size(agent: NativeAgent) -> None:
    with datagrams_through(agent) as client:
        for size in (1, 0, 1472, 65_507, 0, 3):
            data = os.urandom(size)
            client.send(data)
            assert client.recv(1 << 16) == data


def test_each_peer_has_its_own_answers(agent: NativeAgent) -> None:
    with echoing_datagrams() as (port, heard), forwarded(agent, port, "udp") as relay:
        clients = [peer(relay.forward.host) for _ in range(5)]
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
        for number, client in enumerate(clients):
            assert client.recv(100) == b"%d" % number
            client.close()
        assert len(heard) == 5


def test_many_datagrams_use_credit_again(agent: NativeAgent) -> None:
    with datagrams_through(agent) as client:
        for _ in range(200):
            client.send(bytes(30_000))
            assert len(client.recv(1 << 16)) == 30_000


def test_the_longest_silent_peer_makes_room(
    agent: NativeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "MOST", 3)
    with echoing_datagrams() as (port, heard), forwarded(agent, port, "udp") as relay:
        clients = [peer(relay.forward.host) for _ in range(5)]
        for client in [*clients, *clients]:
            client.send(b"x")
            assert client.recv(100) == b"x"
        assert len(relay._peers) == 3  # type: ignore[attr-defined]
        assert len(heard) == 10
        for client in clients:
            client.close()


def test_silent_peers_are_forgotten(agent: NativeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "IDLE", 0.2)
    with (
        echoing_datagrams() as (port, _),
        forwarded(agent, port, "udp") as relay,
        peer(relay.forward.host) as client,
    ):
        client.send(b"x")
        assert client.recv(100) == b"x"
        until(lambda: relay._peers == {})  # type: ignore[attr-defined]
        client.send(b"y")
        assert client.recv(100) == b"y"
