"""The host's side of a session with pyvirt's agent: streams and their credit, without I/O.

`Session.feed` takes what arrived and tells handlers; what is to be sent collects in
`Session.take`. Every limit that a guest could pass is checked here: frames for streams that
do not exist, more data than was granted, ends that come twice. Such a guest gets a
`ProtocolError`, which is the end of the session.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future

from attrs import frozen

from pyvirt.errors import ClosedError, GuestError, ProtocolError, SpecError, own
from pyvirt.guest import protocol
from pyvirt.guest.future import fail, settle
from pyvirt.guest.process import Exit
from pyvirt.guest.protocol import PEER, Decoder, Fields, Frame, Kind, Tag

WINDOW = 1 << 20  # bytes that each channel of each stream may send before they are taken
_CREDIT_MOST = 1 << 32
_URGENT = 8  # streams for which room is kept
_RESYNC = bytes(protocol.PAYLOAD + 12)  # no frame can be longer, so its end is behind us


@frozen
class Hello:
    """What the agent said of its guest when the session began."""

    version: int
    pid: int
    hostname: str
    kernel: str
    machine: str
    init_status: int


class Handler:
    """What happens to one stream, in order; `lost` or `over` is the last."""

    #: Whether `data` is called with empty data too, because that is a datagram.
    datagrams = False

    def started(self, pid: int) -> None:
        """The process runs, or the socket is connected."""

    def data(self, channel: int, data: bytes) -> None:
        """Bytes arrived; give their credit back with `Stream.taken` when they are gone."""

    def eof(self, channel: int) -> None:
        """Nothing follows on `channel`."""

    def exited(self, exit: Exit) -> None:
        """The process is gone."""

    def over(self) -> None:
        """Nothing follows at all."""

    def lost(self, error: Exception) -> None:
        """The stream ended before its end: it could not start, or the connection ended."""


class Stream:
    """One stream as the host sees it. Until the guest has room for it, it waits unopened."""

    def __init__(self, session: Session, kind: Kind, payload: bytes, handler: Handler) -> None:
        self.number, self.handler = 0, handler  # 0: not open, or no more
        self._session = session
        self._opening = kind, payload
        self._credit = 0
        self._granted = {1: WINDOW, 2: WINDOW}
        self._due = {1: 0, 2: 0}
        self._waiting: deque[tuple[memoryview, Future[None]]] = deque()
        self._ending = self._broken = self._started = self._exited = False

    def send(self, data: bytes) -> Future[None]:
        """Queue `data`; done when credit has let all of it out."""
        future: Future[None] = Future()
        if self._broken or self._ending:
            fail(future, ClosedError("the command's input", "nobody reads it"))
        else:
            self._waiting.append((memoryview(data), future))
            self._flow()
        return future

    def send_whole(self, data: bytes) -> bool:
        """Send `data` as one datagram, now or not at all: whether there was room for it."""
        room = min(self._credit, protocol.DATA)
        if not self.number or self._broken or self._waiting or len(data) > room:
            return False
        self._session.write(Kind.DATA, self.number, 0, data)
        self._credit -= len(data)
        return True

    def send_end(self) -> None:
        """Nothing follows what was sent."""
        if not self._ending:
            self._ending = True
            self._flow()

    def control(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a SIGNAL, RESIZE or CANCEL; what has not begun can only be cancelled."""
        if self.number:
            self._session.write(kind, self.number, 0, payload)
        elif kind == Kind.CANCEL and self._session.forget(self):
            self.end(ClosedError("the command", "it was cancelled before it began"))

    def taken(self, channel: int, size: int) -> None:
        """`size` bytes of `channel` are gone from our memory, so the guest may send more."""
        self._due[channel] += size
        if self._due[channel] >= WINDOW // 4 and self.number and channel in self._granted:
            due, self._due[channel] = self._due[channel], 0
            self._granted[channel] += due
            payload = due.to_bytes(4, "little")
            self._session.write(Kind.CREDIT, self.number, channel, payload)

    def begin(self, number: int, credit: int) -> None:
        """The guest has room for it."""
        self.number, self._credit = number, credit
        kind, payload = self._opening
        self._session.write(kind, number, 0, payload)
        self._flow()

    def arrived(self, frame: Frame) -> None:
        """Act on a frame of this stream."""
        match frame.kind:
            case Kind.DATA:
                self._data(frame)
            case Kind.EOF if frame.channel == 0:
                self._break(ClosedError("the command's input", "nobody reads it"))
            case Kind.EOF if self._granted.pop(frame.channel, None) is not None:
                self.handler.eof(frame.channel)
            case Kind.CREDIT:
                self._more(int.from_bytes(frame.payload[:4], "little"))
            case Kind.STARTED if not self._started:
                self._started = True
                self.handler.started(Fields(frame.payload).number(Tag.PID) or 0)
            case Kind.EXITED if not self._exited:
                self._exited = True
                self.handler.exited(self._exit(Fields(frame.payload)))
            case Kind.FAILED:
                self.end(failure(Fields(frame.payload)))
            case Kind.END:
                self.end(None)
            case _:
                raise self._session.error("sent a frame out of order")

    def end(self, error: Exception | None) -> None:
        """Nothing happens on this stream any more."""
        self.number = 0
        self._break(error or ClosedError("the command's input", "it ended"))
        if error is None:
            self.handler.over()
        else:
            self.handler.lost(error)

    def _flow(self) -> None:
        """Let out what there is credit for."""
        while self._waiting and (self._credit or not self._waiting[0][0]):
            data, future = self._waiting.popleft()
            size = min(len(data), self._credit, protocol.DATA)
            if size:
                self._session.write(Kind.DATA, self.number, 0, data[:size])
                self._credit -= size
            if size < len(data):
                self._waiting.appendleft((data[size:], future))
            else:
                settle(future, None)
        if self._ending and not self._waiting and not self._broken and self.number:
            self._broken = True
            self._session.write(Kind.EOF, self.number)

    def _data(self, frame: Frame) -> None:
        left = self._granted.get(frame.channel, 0) - len(frame.payload)
        if left < 0:
            raise self._session.error("sent more than it was granted")
        if frame.payload or self.handler.datagrams:
            self._granted[frame.channel] = left
            self.handler.data(frame.channel, frame.payload)

    def _more(self, credit: int) -> None:
        self._credit += credit
        if self._credit > _CREDIT_MOST:
            raise self._session.error("granted too much")
        self._flow()

    def _break(self, error: Exception) -> None:
        self._broken = True
        while self._waiting:
            fail(self._waiting.popleft()[1], own(error))

    def _exit(self, found: Fields) -> Exit:
        code, number = found.number(Tag.EXIT_CODE), found.number(Tag.SIGNAL)
        if (code is None) == (number is None):
            raise self._session.error("sent an end that is none")
        return Exit(code, number, (found.number(Tag.DURATION) or 0) / 1e9)


class Session:
    """All streams of one connection. Not safe for threads by itself."""

    def __init__(self, nonce: bytes, resync: bool = False) -> None:
        self.guest_window = 0
        self.hello: Hello | None = None
        self.streams: dict[int, Stream] = {}
        self._most = 0  # streams that the guest has room for
        self._pending: deque[Stream] = deque()
        self._decoder = Decoder()
        self._nonce = nonce
        self._found = b""  # before the hello
        self._last = self._last_ping = 0
        self._pings: deque[tuple[bytes, Future[None]]] = deque()
        self._held: list[bytes] = []
        self._out = [(_RESYNC if resync else b"") + protocol.hello(nonce, WINDOW)]

    def take(self) -> list[bytes]:
        """What is to be sent now; it is gone from here."""
        out, self._out = self._out, []
        return out

    def write(
        self, kind: Kind, stream: int, channel: int = 0, payload: bytes | memoryview = b""
    ) -> None:
        """Queue a frame; until the guest has answered the hello it is held back."""
        target = self._out if self.hello is not None else self._held
        target.append(protocol.encode(kind, stream, channel, payload))

    def open(self, kind: Kind, payload: bytes, handler: Handler, *, urgent: bool = False) -> Stream:
        """Begin a stream, as soon as the guest has room for it. An `urgent` one goes ahead of
        the others, and some room is kept for it: whatever waits, the guest can be thawed.
        """
        if len(payload) > protocol.PAYLOAD:
            raise SpecError("command", f"takes at most {protocol.PAYLOAD} bytes", len(payload))
        stream = Stream(self, kind, payload, handler)
        if urgent and len(self.streams) < self._most:
            self._begin_stream(stream)
        elif urgent:
            self._pending.appendleft(stream)
        else:
            self._pending.append(stream)
            self._admit()
        return stream

    def forget(self, stream: Stream) -> bool:
        """Whether `stream` was still waiting for room; it waits no more."""
        if stream not in self._pending:
            return False
        self._pending.remove(stream)
        return True

    def ping(self) -> Future[None]:
        """Done when the guest answered."""
        future: Future[None] = Future()
        self._last_ping += 1
        payload = self._last_ping.to_bytes(8, "little")
        self._pings.append((payload, future))
        self.write(Kind.PING, 0, 0, payload)
        return future

    def feed(self, data: bytes) -> None:
        """Act on what the guest sent; `ProtocolError` when that breaks the protocol."""
        if self.hello is None:
            data = self._greet(data)
        for frame in self._decoder.feed(data) if data else ():
            if frame.kind == Kind.PONG:
                self._ponged(frame)
            else:
                self._to_stream(frame)

    def fail(self, error: Exception) -> None:
        """End everything that is open."""
        streams = [*self.streams.values(), *self._pending]
        self.streams.clear()
        self._pending.clear()
        pings, self._pings = self._pings, deque()
        for stream in streams:
            stream.end(own(error))
        for _, future in pings:
            fail(future, own(error))

    def error(self, reason: str) -> ProtocolError:
        """What to raise about the guest."""
        return ProtocolError(PEER, reason, self._decoder.offset)

    def _greet(self, data: bytes) -> bytes:
        """Look for the answer to our hello; what follows it."""
        data = self._found + data
        found, done = protocol.find_hello(data, self._nonce)
        self._decoder.offset += done
        if found is None:
            self._found = data[done:]
            return b""
        version = found.number(Tag.VERSION) or 0
        if version != protocol.VERSION:
            raise self.error(f"speaks version {version} of its protocol, not {protocol.VERSION}")
        self.guest_window = min(found.number(Tag.WINDOW) or 0, _CREDIT_MOST)
        self._most = found.number(Tag.COUNT) or 0
        self.hello = _hello(found, version)
        self._out += self._held
        self._held = []
        self._admit()
        return data[done:]

    def _admit(self) -> None:
        """Open what waits, as far as there is room."""
        while self._pending and len(self.streams) < self._most - _URGENT:
            self._begin_stream(self._pending.popleft())

    def _begin_stream(self, stream: Stream) -> None:
        self._last += 1
        self.streams[self._last] = stream
        stream.begin(self._last, self.guest_window)

    def _ponged(self, frame: Frame) -> None:
        if not self._pings or self._pings[0][0] != frame.payload:
            raise self.error("answered a ping that was not sent")
        settle(self._pings.popleft()[1], None)

    def _to_stream(self, frame: Frame) -> None:
        stream = self.streams.get(frame.stream)
        if stream is None:
            raise self.error("sent a frame for a stream that is not open")
        if frame.kind in (Kind.FAILED, Kind.END):
            del self.streams[frame.stream]
            self._admit()
        stream.arrived(frame)


def _hello(found: Fields, version: int) -> Hello:
    return Hello(
        version,
        found.number(Tag.PID) or 0,
        found.text(Tag.HOSTNAME),
        found.text(Tag.KERNEL),
        found.text(Tag.MACHINE),
        found.number(Tag.INIT_STATUS) or 0,
    )


def failure(found: Fields, doing: str = "") -> GuestError:
    """The error that the agent describes with ERRNO and WHAT."""
    number = found.number(Tag.ERRNO)
    what = found.text(Tag.WHAT, "a request")
    reason = os.strerror(number) if number is not None and number < 4096 else "no reason given"
    return GuestError(f"{doing} {what}".strip(), reason, number)
