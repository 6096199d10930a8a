"""Datagrams to a port of this host go to the guest, and its answers to who sent them."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from pyvirt.errors import PyvirtError
from pyvirt.guest.session import Handler
from pyvirt.nic import Forward
from pyvirt.running.relay.base import CHUNK, MOST, Dial, Relay, Remote
from pyvirt.running.waiting.loop import Timer, loop

#: Seconds without a datagram after which a UDP peer is forgotten, as netfilter does.
IDLE = 60.0

#: Datagrams taken in one turn, so that other sockets get theirs.
_TURN = 64


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
                data, address = self._socket.recvfrom(CHUNK)
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
