"""QMP without I/O: commands to bytes, bytes to replies and events.

Replies carry no ids: QEMU answers in-band commands in their order, and it reads requests
byte by byte (4.4 µs each, `monitor_can_read` in monitor/monitor.c), so the shortest encoding
is the fastest. Only out-of-band commands, which may overtake, have one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from pyvirt._native.qmp import MAX_DEPTH, Scanner
from pyvirt.errors import CommandError, ProtocolError, SpecError
from pyvirt.qmp.event import Event

LIMIT = 64 << 20
"""Bytes of the longest message accepted by default, which is QEMU's own limit for requests."""

EVENT_LIMIT = 64 << 10
"""Bytes of the longest event accepted: QEMU's own have some hundreds, and queues hold many."""

AHEAD = b'{"execute":"'
"""How every command begins. Sent with the command before, it has been read, byte by byte, when
the next command is given: that halves what QEMU has still to read of a short one."""

AHEAD_OF_ANY = b'{"exec'
"""How every command begins where some may be out of band (``exec-oob``)."""

_ROOM = 64 << 10
_GREETING, _RETURN, _ERROR, _EVENT = 1, 2, 3, 4


class Release(msgspec.Struct, frozen=True):
    """QEMU's version in three numbers."""

    major: int
    minor: int
    micro: int


class Version(msgspec.Struct, frozen=True):
    """QEMU's version, and what its packager calls it."""

    qemu: Release
    package: str = ""


class Greeting(msgspec.Struct, frozen=True):
    """What QEMU says first: who it is, and which capabilities it offers ("oob")."""

    version: Version
    capabilities: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """The reply to one command: what it returned, or why it was refused."""

    ticket: Any
    value: Any = None
    error: CommandError | None = None


Message: TypeAlias = Greeting | Answer | Event


class _Fault(msgspec.Struct, frozen=True, rename={"kind": "class"}):
    kind: str
    desc: str


class _Expected(msgspec.Struct, frozen=True):
    ticket: Any
    name: str
    raw: bool


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"JSON has no {type(value).__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_decode_any = msgspec.json.Decoder().decode
_decode_event = msgspec.json.Decoder(Event).decode
_decode_fault = msgspec.json.Decoder(_Fault).decode
_decode_greeting = msgspec.json.Decoder(Greeting).decode


def encode(name: str, arguments: Mapping[str, Any] | None = None, oob: int | None = None) -> bytes:
    """The shortest bytes that ask for `name`; with a number for `oob`, out of band."""
    request: dict[str, Any] = {"execute" if oob is None else "exec-oob": name}
    if arguments:
        request["arguments"] = arguments
    if oob is not None:
        request["id"] = oob
    try:
        return _encoder.encode(request)
    except (TypeError, OverflowError, UnicodeError, RecursionError) as error:
        raise SpecError(f"{name} arguments", f"must be JSON ({error})", arguments) from None


class Protocol:
    """One connection's state: what was asked, what arrived so far, which events are wanted.

    `expect` in the order in which commands are sent. `size` bounds the bytes and `depth` the
    nesting of one message; memory stays within twice `size`. After a `ProtocolError` the
    stream has no meaning any more.
    """

    def __init__(self, peer: str = "QEMU", *, size: int = LIMIT, depth: int = MAX_DEPTH) -> None:
        if not 64 <= size <= 1 << 30:
            raise SpecError("size", "must be between 64 bytes and 1 GiB", size)
        if not 1 <= depth <= MAX_DEPTH:
            raise SpecError("depth", f"must be between 1 and {MAX_DEPTH}", depth)
        self.peer = peer
        self.greeting: Greeting | None = None
        self._size = size
        self._scanner = Scanner(peer, size, depth)
        self._in_order: deque[_Expected] = deque()
        self._by_id: dict[int, _Expected] = {}
        self._wanted: bytes | None = b""
        self._used = 0
        self._at = 0  # where the message that is handed out begins
        self._take(_ROOM)

    @property
    def unwanted(self) -> int:
        """How many events were passed over, because nobody wanted them."""
        return self._scanner.unwanted

    @property
    def within(self) -> bool:
        """Whether the stream stands inside a message."""
        return self._used > self._scanner.unfinished

    def want(self, names: Iterable[str] | None) -> None:
        """Decode only events of these names from now on; None means all of them."""
        self._wanted = None if names is None else "".join(f"{n}\n" for n in names).encode()

    def expect(self, ticket: Any, name: str, *, raw: bool = False, oob: int | None = None) -> None:
        """Command `name` goes out now; its `Answer` will carry `ticket`.

        With `raw` its value is the reply's JSON in bytes, not decoded.
        """
        expected = _Expected(ticket, name, raw)
        if oob is None:
            self._in_order.append(expected)
        else:
            self._by_id[oob] = expected

    def abandon(self) -> list[Any]:
        """The tickets of all commands that were never answered."""
        left = [expected.ticket for expected in (*self._in_order, *self._by_id.values())]
        self._in_order.clear()
        self._by_id.clear()
        return left

    def room(self) -> memoryview:
        """Where to receive the next bytes; tell `received` how many came."""
        if self._used and len(self._buffer) - self._used < _ROOM // 2:
            self._make_room()
        return self._view[self._used :] if self._used else self._view

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Message]:
        """What `data` completes; take all of it before feeding more."""
        view = memoryview(data)
        while len(view):
            room = self.room()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            view = view[count:]
            yield from self.received(count)

    def received(self, count: int) -> Iterator[Message]:
        """What `count` more bytes in `room` complete; take all of it before receiving more."""
        self._used += count
        while found := self._scanner.scan(self._buffer, self._used, self._wanted):
            for kind, start, end, value, value_end, id_, id_end in found:
                self._at = start
                try:
                    if kind == _RETURN:
                        yield self._returned(self._view[value:value_end], id_, id_end)
                    elif kind == _EVENT:
                        yield self._heard(start, end)
                    elif kind == _ERROR:
                        yield self._refused(self._view[value:value_end], id_, id_end)
                    else:
                        yield self._greeted(self._view[value:value_end])
                except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                    raise self._broken(f"sent a message that cannot be read ({error})") from None
        if self._scanner.unfinished == self._used:
            self._used = 0
            self._scanner.moved()
            if len(self._buffer) > 16 * _ROOM:
                self._take(_ROOM)

    def _heard(self, start: int, end: int) -> Event:
        if end - start > EVENT_LIMIT:
            raise self._broken("sent an event longer than allowed")
        return _decode_event(self._view[start:end])

    def _returned(self, value: memoryview, id_: int, id_end: int) -> Answer:
        expected = self._expected(id_, id_end)
        return Answer(expected.ticket, bytes(value) if expected.raw else _decode_any(value))

    def _refused(self, value: memoryview, id_: int, id_end: int) -> Answer:
        fault = _decode_fault(value)
        expected = self._expected(id_, id_end)
        error = CommandError(expected.name, fault.kind, fault.desc)
        return Answer(expected.ticket, error=error)

    def _greeted(self, value: memoryview) -> Greeting:
        if self.greeting is not None:
            raise self._broken("greeted twice")
        self.greeting = _decode_greeting(value)
        return self.greeting

    def _expected(self, id_: int, id_end: int) -> _Expected:
        """Who asked for the reply with this id, or for the next one in order."""
        if not id_end:
            if self._in_order:
                return self._in_order.popleft()
            raise self._broken("answered a command that was never sent")
        number = _decode_any(self._view[id_:id_end])
        if type(number) is int and number in self._by_id:
            return self._by_id.pop(number)
        raise self._broken(f"answered with the unknown id {number!r:.40}")

    def _broken(self, reason: str) -> ProtocolError:
        return ProtocolError(self.peer, reason, self._scanner.base + self._at)

    def _make_room(self) -> None:
        """Move the unfinished message to the front, into a larger buffer if it fills this one."""
        start, used = self._scanner.unfinished, self._used
        old, size = self._view, len(self._buffer)
        if used - start > size // 2:
            self._take(min(2 * size, self._size + _ROOM))
        self._view[: used - start] = old[start:used]
        self._used = used - start
        self._scanner.moved()

    def _take(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
