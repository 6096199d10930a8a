"""One connection on which QMP is spoken: a socket, its protocol, and whose turn it is to read.

Whoever has a command to give sends it himself. The loop's thread reads, except while a thread
waits for a reply: then that thread reads (it *leads*) for everybody, which saves two thread
switches a command. `_turn` is held by whoever reads, `_sending` by whoever sends.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any
from typing import Protocol as Interface

from pyvirt.errors import ClosedError, PyvirtError, own
from pyvirt.qmp.event import Event
from pyvirt.qmp.protocol import Answer, Greeting, Protocol
from pyvirt.running.waiting.interrupts import Uninterrupted
from pyvirt.running.waiting.loop import loop

_LONGEST = 3_600_000  # milliseconds of one wait; poll takes no more than some weeks


class Request(Future[Any]):
    """A command on its way; as a future, what it returned."""

    def __init__(
        self,
        name: str,
        payload: bytes,
        fds: Iterable[int] = (),
        *,
        raw: bool = False,
        oob: int | None = None,
    ) -> None:
        super().__init__()
        self.name, self.payload, self.fds, self.raw, self.oob = name, payload, tuple(fds), raw, oob
        self.owns_fds = False

    def keep_fds(self) -> None:
        """Have descriptors of its own: the caller may close his before they are sent."""
        if not self.owns_fds:
            self.fds, self.owns_fds = tuple(os.dup(fd) for fd in self.fds), True

    def drop_fds(self) -> None:
        """Close the descriptors of its own."""
        if self.owns_fds:
            for fd in self.fds:
                os.close(fd)
            self.fds, self.owns_fds = (), False

    def settle(self, value: Any, error: BaseException | None = None) -> None:
        """Have the reply, unless nobody waits for it any more."""
        if self.owns_fds:
            self.drop_fds()
        settle(self, value, error)


def settle(future: Future[Any], value: Any, error: BaseException | None = None) -> None:
    """End `future` with `error`, or else with `value`, unless it was cancelled."""
    if future.set_running_or_notify_cancel():
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


class Owner(Interface):
    """Who hears what was not asked for. All are called by whoever reads, and must not wait."""

    def hear(self, channel: Channel, message: Greeting | Event) -> None: ...
    def why(self, cause: Exception | None) -> PyvirtError:
        """What to tell all who wait: it ended for `cause`, or the peer closed it (None)."""
    def ended(self, channel: Channel, error: PyvirtError, unsent: list[Request]) -> None: ...


class Channel:
    """Commands go out in order, `Request`s are settled as replies arrive.

    Nothing but what is `first` is sent before `admit`. The `owner` is asked for at every use,
    so that a channel does not keep it alive; with its owner gone, the channel ends.
    """

    def __init__(
        self, sock: socket.socket, protocol: Protocol, owner: Callable[[], Owner | None]
    ) -> None:
        sock.setblocking(False)
        self.protocol = protocol
        self.error: PyvirtError | None = None
        self.ahead = b""  # what to send of the next command together with this one
        self._sock, self._fd, self._owner = sock, sock.fileno(), owner
        self._pid = os.getpid()
        self._turn, self._sending = threading.Lock(), threading.Lock()
        self._reader: int | None = None
        self._admitted = False
        self._begun = b""  # what was already sent of the next command
        self._unsent: deque[Request] = deque()
        self._rest = b""  # of the command that is half sent
        self._rest_fds: tuple[int, ...] = ()
        self._passing = 0  # commands with descriptors that were sent and not answered
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._loop = loop()
        self._loop.add(self._fd, self._readable)

    @property
    def foreign(self) -> bool:
        """Whether this is the copy of another process's channel, in a forked child."""
        return self._pid != os.getpid()

    def submit(self, request: Request, *, first: bool = False) -> None:
        """Send `request` now if that is possible, else as soon as it is."""
        with Uninterrupted():
            self._submit(request, first)

    def admit(self) -> None:
        """From now on everything may be sent."""
        with self._sending:
            self._admitted = True
            self._send_waiting()

    def lead(
        self, future: Future[Any], deadline: float | None, request: Request | None = None
    ) -> None:
        """Read, if nobody else does, until `future` is done or `deadline` has passed.

        A `request` is sent first, and when this thread already leads: otherwise a fast reply
        wakes the loop's thread as well, and both fight for the interpreter.
        """
        if self._reader == threading.get_ident():
            raise RuntimeError("a callback must not wait for the monitor that called it")
        with Uninterrupted() as interrupts:
            leads = not self.foreign and self._turn.acquire(blocking=False)
            if leads:
                self._reader = threading.get_ident()
            try:
                if leads and self.error is None:
                    self._loop.reading(self._fd, False)
                if request is not None:
                    self._submit(request)
                if leads:
                    self._read_until(future, deadline, interrupts)
            finally:
                if leads:
                    self._follow()

    def _follow(self) -> None:
        """Let the loop's thread read again."""
        if self.error is None:
            self._loop.reading(self._fd, True)
        self._reader = None
        self._turn.release()

    def _submit(self, request: Request, first: bool = False) -> None:
        with self._sending:
            error = self.error
            if error is None:
                if first or (self._admitted and not self._unsent and self._free(request)):
                    self._send(request)
                else:
                    request.keep_fds()
                    self._unsent.append(request)
        if error is not None:
            request.settle(None, own(error))

    def shut(self) -> None:
        """End the connection. Its descriptor is closed on return, unless a callback calls."""
        if self.foreign:
            self._sock.close()
            return
        self.sever()
        if self._reader != threading.get_ident() and not self._loop.here():
            with self._turn:
                self._end(None)

    def sever(self) -> None:
        """Have whoever reads end the connection; takes no lock, so it suits a destructor."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _free(self, request: Request) -> bool:
        # QEMU keeps the descriptors of one message only, and forgets them when the next
        # ones arrive (tcp_chr_recv in chardev/char-socket.c): one command with some at a time.
        return not self._rest and not (request.fds and self._passing)

    def _send(self, request: Request) -> None:
        self.protocol.expect(request, request.name, raw=request.raw, oob=request.oob)
        self._rest = request.payload[len(self._begun) :] + self.ahead
        self._rest_fds, self._begun = request.fds, self.ahead
        self._passing += bool(request.fds)
        self._push()
        if self._rest:
            if self._rest_fds:
                request.keep_fds()
                self._rest_fds = request.fds
            self._loop.writable(self._fd, self._writable)

    def _push(self) -> None:
        """Send what the socket takes of the command that is half sent."""
        try:
            if self._rest_fds:
                fds, flags = self._rest_fds, socket.MSG_NOSIGNAL
                sent = socket.send_fds(self._sock, [self._rest], fds, flags)
                self._rest_fds = ()
            else:
                sent = self._sock.send(self._rest, socket.MSG_NOSIGNAL)
            self._rest = self._rest[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._rest = b""
            self.sever()  # its reader learns of the end, and tells all

    def _writable(self) -> None:
        with self._sending:
            if self._rest:
                self._push()
            self._send_waiting()
            if not self._rest:
                self._loop.writable(self._fd, None)

    def _send_waiting(self) -> None:
        while self._unsent and self._free(self._unsent[0]) and self.error is None:
            request = self._unsent.popleft()
            if request.cancelled():
                request.drop_fds()
            else:
                self._send(request)

    def _readable(self) -> None:
        if self._turn.acquire(blocking=False):
            self._reader = threading.get_ident()
            try:
                if self.error is None:
                    self._receive()
            finally:
                self._reader = None
                self._turn.release()

    def _read_until(
        self, future: Future[Any], deadline: float | None, interrupts: Uninterrupted
    ) -> None:
        while self.error is None and not future.done():
            patience = None
            if deadline is not None:
                patience = min((deadline - time.monotonic()) * 1000, _LONGEST)
                if patience <= 0:
                    return
            interrupts.waiting = True
            arrived = self._poll.poll(patience)
            interrupts.waiting = False
            if arrived:
                self._receive()

    def _receive(self) -> None:
        """Take what has arrived and hand it out."""
        try:
            self._hand_out(self._sock.recv_into(self.protocol.room()))
        except BlockingIOError:
            pass
        except (OSError, PyvirtError) as cause:
            self._end(cause)
        except BaseException:
            # Another signal's handler raised: what was just read is lost, and no later reply
            # could be told apart.
            self._end(ClosedError(self.protocol.peer, "its reader was interrupted"))
            raise

    def _hand_out(self, count: int) -> None:
        if count == 0:
            self._end(None)
            return
        for message in self.protocol.received(count):
            if type(message) is Answer:
                self._answer(message)
            elif (owner := self._owner()) is not None:
                owner.hear(self, message)  # type: ignore[arg-type]

    def _answer(self, answer: Answer) -> None:
        request: Request = answer.ticket
        if request.fds:
            with self._sending:
                self._passing -= 1
                self._send_waiting()
        request.settle(answer.value, answer.error)

    def _end(self, cause: Exception | None) -> None:
        """Close, and tell all who wait. Only for the one whose turn it is."""
        if self.error is not None:
            return
        self._loop.remove(self._fd)
        owner = self._owner()
        error = ClosedError(self.protocol.peer, "forgotten") if owner is None else owner.why(cause)
        with self._sending:
            self.error = error
            self._sock.close()
            unsent = list(self._unsent)
            self._unsent.clear()
        for request in self.protocol.abandon():
            request.settle(None, own(error))
        if owner is not None:
            owner.ended(self, error, unsent)
        else:
            for request in unsent:
                request.settle(None, own(error))
