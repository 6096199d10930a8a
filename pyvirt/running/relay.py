"""Ports of this host that lead into a guest through its agent, where no user network does.

A relay listens on this host. Each connection, and for UDP each peer, becomes a stream of the
agent to a socket in the guest. All of it happens on the I/O thread; what waits is bounded by
the streams' credit and by the socket buffers, so a slow end holds the other one back.
"""

from __future__ import annotations

import os
import socket
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Protocol

from attrs import evolve

from pyvirt.errors import PyvirtError
from pyvirt.guest.future import fail, settle
from pyvirt.guest.session import Handler
from pyvirt.nic import Forward
from pyvirt.running.loop import Timer, loop

#: Connections, or UDP peers, of one relay: half the streams that the agent has.
MOST = 64

#: Seconds without a datagram after which a UDP peer is forgotten, as netfilter does.
IDLE = 60.0

#: Datagrams taken in one turn, so that other sockets get theirs.
_TURN = 64

_CHUNK = 64 << 10
_RESET = struct.pack("ii", 1, 0)  # linger no time: the peer sees a reset, not an end


class Remote(Protocol):
    """The agent's stream, as a relay uses it."""

    def send(self, data: bytes) -> Future[None]: ...
    def send_end(self) -> None: ...
    def send_whole(self, data: bytes) -> bool: ...
    def cancel(self) -> None: ...
    def taken(self, channel: int, size: int) -> None: ...


#: Opens a stream to the guest's port; what happens on it goes to the handler.
Dial = Callable[[Handler], Remote]


class Relay:
    """One forwarded port; `forward` tells where it listens. `close` is safe from any thread."""

    forward: Forward

    def __init__(self, wanted: Forward, kind: int, dial: Dial) -> None:
        self._dial = dial
        self._socket = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
        try:
            if kind == socket.SOCK_STREAM:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((str(wanted.host_address), wanted.host))
            self.forward = evolve(wanted, host=self._socket.getsockname()[1])
            self._begin()
        except BaseException:
            self._socket.close()
            raise
        _relays.add(self)

    def close(self) -> None:
        """Listen no more, and end what goes on. Done on return."""
        if loop().here():
            self._end()
            return
        ended: Future[None] = Future()

        def end() -> None:
            try:
                self._end()
                settle(ended, None)
            except BaseException as error:
                fail(ended, error)

        loop().soon(end)
        ended.result()

    def _begin(self) -> None:
        raise NotImplementedError

    def abandon(self) -> None:
        """In a forked child: the port is the parent's."""
        self._socket.close()

    def _end(self) -> None:
        _relays.discard(self)
        if self._socket.fileno() >= 0:
            loop().remove(self._socket.fileno())
            self._socket.close()


class TcpRelay(Relay):
    """Connections to a port of this host become connections in the guest."""

    def __init__(self, wanted: Forward, dial: Dial) -> None:
        self._pipes: set[_Pipe] = set()
        super().__init__(wanted, socket.SOCK_STREAM, dial)

    def _begin(self) -> None:
        self._socket.listen(MOST)
        loop().add(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:  # it went away before we looked
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipe = _Pipe(connection, self._over)
        try:
            pipe.begin(self._dial(pipe))
        except PyvirtError:  # the agent is gone
            pipe.reset()
            return
        self._pipes.add(pipe)
        if len(self._pipes) == MOST:  # the others wait in the kernel's queue
            loop().reading(self._socket.fileno(), False)

    def _over(self, pipe: _Pipe) -> None:
        if pipe in self._pipes:
            self._pipes.remove(pipe)
            if len(self._pipes) == MOST - 1 and self._socket.fileno() >= 0:
                loop().reading(self._socket.fileno(), True)

    def abandon(self) -> None:
        super().abandon()
        for pipe in self._pipes:
            pipe.abandon()

    def _end(self) -> None:
        super()._end()
        for pipe in list(self._pipes):
            pipe.reset()


class _Pipe(Handler):
    """One connection: a socket here, a stream there."""

    def __init__(self, connection: socket.socket, over: Callable[[_Pipe], None]) -> None:
        self._socket, self._fd = connection, connection.fileno()
        self._over = over
        self._out: deque[memoryview] = deque()
        self._remote: Remote
        self._ended = False  # the guest's end; `_finished` is this host's
        self._finished = self._gone = self._closed = False

    def begin(self, remote: Remote) -> None:
        """Its stream is there."""
        self._remote = remote
        loop().add(self._fd, self._readable)

    # From this host to the guest

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.reset()
            return
        if not data:
            self._finished = True
            loop().reading(self._fd, False)
            self._remote.send_end()
            return
        sent = self._remote.send(data)
        if not sent.done():
            loop().reading(self._fd, False)
            sent.add_done_callback(lambda _: loop().soon(self._resume))
        elif sent.exception() is not None:
            self._refuse_more()

    def _resume(self) -> None:
        if not self._closed and not self._finished:
            loop().reading(self._fd, True)

    def _refuse_more(self) -> None:
        """Nobody in the guest reads any longer; what it still says goes on."""
        self._finished = True
        loop().reading(self._fd, False)

    # From the guest to this host

    def data(self, channel: int, data: bytes) -> None:
        if self._closed:
            self._remote.taken(channel, len(data))
            return
        self._out.append(memoryview(data))
        if len(self._out) == 1:
            self._send()

    def eof(self, channel: int) -> None:
        if channel == 1:
            self._ended = True
            self._send()

    def over(self) -> None:
        self._gone = True
        loop().soon(self._send)

    def lost(self, error: Exception) -> None:
        loop().soon(self.reset)

    def _send(self) -> None:
        if self._closed:
            return
        try:
            while self._out:
                sent = self._socket.send(self._out[0], socket.MSG_NOSIGNAL)
                self._remote.taken(1, sent)
                self._out[0] = self._out[0][sent:]
                if not self._out[0]:
                    self._out.popleft()
        except BlockingIOError:
            loop().writable(self._fd, self._send)
            return
        except OSError:
            loop().soon(self.reset)
            return
        loop().writable(self._fd, None)
        if self._gone:
            self._close()
        elif self._ended:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    # Its end

    def reset(self) -> None:
        """End it in a way that cannot be taken for a proper end."""
        if not self._closed:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._close()

    def abandon(self) -> None:
        """In a forked child: the connection is the parent's."""
        self._socket.close()

    def _close(self) -> None:
        self._closed = True
        loop().remove(self._fd)
        self._socket.close()
        if hasattr(self, "_remote"):
            self._remote.cancel()
        while self._out:
            self._remote.taken(1, len(self._out.popleft()))
        self._over(self)


class UdpRelay(Relay):
    """Datagrams to a port of this host go to the guest, and its answers to who sent them."""

    def __init__(self, wanted: Forward, dial: Dial) -> None:
        self._peers: dict[tuple[str, int], _Peer] = {}  # the longest silent first
        self._sweeper: Timer | None = None
        super().__init__(wanted, socket.SOCK_DGRAM, dial)

    def _begin(self) -> None:
        loop().add(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(_TURN):
                data, address = self._socket.recvfrom(_CHUNK)
                with suppress(PyvirtError):  # the agent is gone: as on any network, it is lost
                    self._peer(address).send(data)

    def _peer(self, address: tuple[str, int]) -> _Peer:
        peer = self._peers.pop(address, None)
        if peer is None or peer.over_already:
            if len(self._peers) >= MOST:
                self._peers.pop(next(iter(self._peers))).close()
            peer = _Peer(self._socket, address)
            peer.begin(self._dial(peer))
        self._peers[address] = peer
        if self._sweeper is None:
            self._sweeper = loop().later(IDLE, self._sweep)
        return peer

    def _sweep(self) -> None:
        """Forget who was silent for long."""
        old = time.monotonic() - IDLE
        for address in [a for a, peer in self._peers.items() if peer.heard < old]:
            self._peers.pop(address).close()
        self._sweeper = loop().later(IDLE / 4, self._sweep) if self._peers else None

    def _end(self) -> None:
        super()._end()
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._peers:
            self._peers.popitem()[1].close()


class _Peer(Handler):
    """One who sends datagrams, with a socket of its own in the guest."""

    datagrams = True

    def __init__(self, sock: socket.socket, address: tuple[str, int]) -> None:
        self._socket, self._address = sock, address
        self._remote: Remote
        self.heard = time.monotonic()
        self.over_already = False

    def begin(self, remote: Remote) -> None:
        """Its stream is there."""
        self._remote = remote

    def send(self, data: bytes) -> None:
        """To the guest; lost where there is no room, as on any network."""
        self.heard = time.monotonic()
        self._remote.send_whole(data)

    def data(self, channel: int, data: bytes) -> None:
        self.heard = time.monotonic()
        with suppress(OSError):  # lost, or the relay is closed
            self._socket.sendto(data, socket.MSG_DONTWAIT, self._address)
        self._remote.taken(channel, len(data))

    def over(self) -> None:
        self.over_already = True

    def lost(self, error: Exception) -> None:
        self.over_already = True

    def close(self) -> None:
        """Forget it."""
        self._remote.cancel()


_relays: weakref.WeakSet[Relay] = weakref.WeakSet()


def _forked() -> None:
    for relay in list(_relays):
        relay.abandon()
    _relays.clear()


os.register_at_fork(after_in_child=_forked)


def open_relay(wanted: Forward, dial: Dial) -> Relay:
    """Listen for `wanted`; `OSError` when the port is taken."""
    return (TcpRelay if wanted.proto == "tcp" else UdpRelay)(wanted, dial)
