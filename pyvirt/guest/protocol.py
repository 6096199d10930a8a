"""The wire of pyvirt's agent: bytes to frames, frames to bytes, and no I/O.

``csrc/pv_frame.h`` documents the format once, above its tables; this is the same in Python.
What arrives was written by a guest: every length is checked before it is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from pyvirt.errors import ProtocolError

VERSION = 1
PREAMBLE = b"\xffpyvirt agent\r\n\0"
PAYLOAD = 256 << 10
DATA = 64 << 10  # bytes in one DATA frame to the guest, so that other streams get their turn
PEER = "the guest's agent"

_HEADER = struct.Struct("<IIBBH")
_FIELD = struct.Struct("<I")
_NUMBER = struct.Struct("<Q")
_HELLO_MOST = 4096  # bytes in an honest one


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    PING = 2
    PONG = 3
    EXEC = 4
    CONNECT = 5
    SHUTDOWN = 6
    STARTED = 7
    FAILED = 8
    DATA = 9
    EOF = 10
    CREDIT = 11
    SIGNAL = 12
    RESIZE = 13
    CANCEL = 14
    EXITED = 15
    END = 16


class Tag(IntEnum):
    """What a field is."""

    VERSION = 1
    NONCE = 2
    WINDOW = 3
    ARG = 4
    SHELL = 5
    APPLET = 6
    ENV = 7
    CWD = 8
    USER = 9
    PTY = 10
    NO_INPUT = 11
    PROTOCOL = 12
    HOST = 13
    PORT = 14
    PID = 15
    ERRNO = 16
    WHAT = 17
    EXIT_CODE = 18
    SIGNAL = 19
    DURATION = 20
    SIZE = 21
    COUNT = 22
    INIT_STATUS = 23
    HOSTNAME = 24
    KERNEL = 25
    MACHINE = 26
    OS_RELEASE = 27
    UPTIME = 28
    TIME = 29
    INTERFACE = 30
    FILESYSTEM = 31
    LOGIN = 32
    NAME = 33
    MAC = 34
    ADDRESS = 35
    TYPE = 36
    DEVICE = 37
    TOTAL = 38
    USED = 39


class Frame(NamedTuple):
    """One frame of the wire."""

    kind: int
    stream: int
    channel: int
    payload: bytes


Value: TypeAlias = str | bytes | int


def encode(kind: Kind, stream: int, channel: int = 0, payload: bytes | memoryview = b"") -> bytes:
    """The bytes of one frame."""
    return b"".join((_HEADER.pack(len(payload), stream, kind, channel, 0), payload))


def fields(pairs: Iterable[tuple[Tag, Value]]) -> bytes:
    """The payload that holds these fields. Text is UTF-8 with ``surrogateescape``."""
    parts: list[bytes] = []
    for tag, value in pairs:
        data = _value(value)
        parts += (_FIELD.pack(tag | len(data) << 8), data)
    return b"".join(parts)


def _value(value: Value) -> bytes:
    if isinstance(value, int):
        return _NUMBER.pack(value)
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


class Fields:
    """The fields of a payload, in order; tags that are not known are kept and harmless."""

    def __init__(self, payload: bytes, offset: int = 0) -> None:
        self._offset = offset
        self._found: dict[int, list[bytes]] = {}
        at = 0
        while at < len(payload):
            end = at + 4
            if end <= len(payload):
                (head,) = _FIELD.unpack_from(payload, at)
                end += head >> 8
            if end > len(payload):
                raise ProtocolError(PEER, "sent a field that is cut short", offset + at)
            self._found.setdefault(head & 0xFF, []).append(payload[at + 4 : end])
            at = end

    def __contains__(self, tag: Tag) -> bool:
        return tag in self._found

    def all(self, tag: Tag) -> list[bytes]:
        """Every value of a tag."""
        return self._found.get(tag, [])

    def texts(self, tag: Tag) -> tuple[str, ...]:
        """Every value of a tag, as text."""
        return tuple(value.decode("utf-8", "surrogateescape") for value in self.all(tag))

    def text(self, tag: Tag, default: str = "") -> str:
        """The first value of a tag, as text."""
        return next(iter(self.texts(tag)), default)

    def number(self, tag: Tag) -> int | None:
        """The first value of a tag, as a number; None when there is none."""
        for value in self.all(tag):
            if len(value) != _NUMBER.size:
                raise ProtocolError(PEER, "sent a number of a wrong size", self._offset)
            return int(_NUMBER.unpack(value)[0])
        return None


class Decoder:
    """Cuts bytes into frames. Of a frame that is not whole yet it keeps at most 256 KiB."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset  # of the first byte that is kept, in all that came
        self._kept = bytearray()
        self._need = _HEADER.size  # bytes kept before there is something to look at

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole with `data`; `ProtocolError` when they cannot be frames."""
        if self._kept:
            self._kept += data
            if len(self._kept) < self._need:
                return []
            data = bytes(self._kept)
        return self._cut(data)

    def _cut(self, data: bytes) -> list[Frame]:
        at, frames = 0, []
        self._need = _HEADER.size
        while len(data) - at >= _HEADER.size:
            size, stream, kind, channel, zero = _HEADER.unpack_from(data, at)
            if size > PAYLOAD or not 1 <= kind <= Kind.END or channel > 2 or zero:
                raise ProtocolError(PEER, "sent what is no frame", self.offset + at)
            end = at + _HEADER.size + size
            if end > len(data):
                self._need = end - at
                break
            frames.append(Frame(kind, stream, channel, data[at + _HEADER.size : end]))
            at = end
        self._kept = bytearray(data[at:])
        self.offset += at
        return frames


def find_hello(data: bytes, nonce: bytes) -> tuple[Fields | None, int]:
    """The agent's answer to the hello with `nonce`, and how much of `data` is done with.

    What lies before it is anything: the rest of a frame of an older session, a boot loader's
    words, an answer to an older hello.
    """
    at = 0
    while (found := data.find(PREAMBLE, at)) >= 0:
        at = found + len(PREAMBLE)
        if len(data) - at < _HEADER.size:
            return None, found
        size, _, kind, _, _ = _HEADER.unpack_from(data, at)
        payload = data[at + _HEADER.size : at + _HEADER.size + size]
        if kind != Kind.HELLO or size > _HELLO_MOST:
            continue
        if len(payload) < size:
            return None, found
        if (greeting := _fields_or_none(payload)) and nonce in greeting.all(Tag.NONCE):
            return greeting, at + _HEADER.size + size
    return None, max(at, len(data) - len(PREAMBLE) + 1)


def _fields_or_none(payload: bytes) -> Fields | None:
    try:
        return Fields(payload)
    except ProtocolError:
        return None


def hello(nonce: bytes, window: int) -> bytes:
    """How a session begins."""
    payload = fields([(Tag.VERSION, VERSION), (Tag.NONCE, nonce), (Tag.WINDOW, window)])
    return PREAMBLE + encode(Kind.HELLO, 0, 0, payload)


def command_fields(
    command: str | Iterable[str],
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: str | None,
) -> list[tuple[Tag, Value]]:
    """The fields of an EXEC frame that name a command and its surroundings."""
    pairs: list[tuple[Tag, Value]] = (
        [(Tag.SHELL, command)]
        if isinstance(command, str)
        else [(Tag.ARG, word) for word in command]
    )
    pairs += [(Tag.ENV, f"{key}={value}") for key, value in (env or {}).items()]
    pairs += [(Tag.CWD, cwd)] if cwd is not None else []
    pairs += [(Tag.USER, user)] if user is not None else []
    return pairs
