"""What the relays of all protocols share: a listening socket, and its end."""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from attrs import evolve

from pyvirt.guest.future import fail, settle
from pyvirt.guest.session import Handler
from pyvirt.nic import Forward
from pyvirt.running.waiting.loop import loop

#: Connections, or UDP peers, of one relay: a quarter of the streams that the agent has.
MOST = 32

CHUNK = 64 << 10


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


_relays: weakref.WeakSet[Relay] = weakref.WeakSet()


def _forked() -> None:
    for relay in list(_relays):
        relay.abandon()
    _relays.clear()


os.register_at_fork(after_in_child=_forked)
