"""Connections to a port of this host become connections in the guest."""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from pyvirt.errors import PyvirtError
from pyvirt.guest.session import Handler
from pyvirt.nic import Forward
from pyvirt.running.relay.base import CHUNK, MOST, Dial, Relay, Remote
from pyvirt.running.waiting.loop import loop

_RESET = struct.pack("ii", 1, 0)  # linger no time: the peer sees a reset, not an end


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
            data = self._socket.recv(CHUNK)
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
