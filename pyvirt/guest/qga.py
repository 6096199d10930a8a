"""The QEMU guest agent's protocol, without I/O; its conversations are in `qga_flows`.

It speaks JSON lines like QMP, without greeting, events or ids: replies come in order. What a
line's earlier life left in the channel is skipped by ``guest-sync-delimited``, whose answer
begins with a byte 0xFF, which no JSON has. (Source: QEMU's qga/ and docs/interop/qemu-ga-ref.)
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import msgspec

from pyvirt.errors import GuestError, ProtocolError, SpecError
from pyvirt.qmp.flow import Command

PEER = "the QEMU guest agent"
LINE = 64 << 20
"""Bytes of the longest reply that is accepted: 2 x 16 MiB of output in base64, and some."""

_DELIMITER = b"\xff"


class Reply(NamedTuple):
    """One reply; `delimited` when 0xFF went ahead of it."""

    delimited: bool
    value: Any
    error: str | None


class Replies:
    """Cuts bytes into replies. Until `sync` was answered everything is skipped."""

    def __init__(self) -> None:
        self.offset = 0
        self._line = bytearray()
        self._deaf = True

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are whole with `data`; `ProtocolError` when they are none."""
        replies = []
        if self._deaf:
            _, delimiter, rest = data.partition(_DELIMITER)
            if not delimiter:
                self.offset += len(data)
                return []
            self.offset += len(data) - len(rest) - 1
            data, self._deaf = delimiter + rest, False
        *whole, rest = data.split(b"\n")
        for part in whole:
            line, self._line = bytes(self._line) + part, bytearray()
            if line.strip():
                replies.append(self._reply(line))
            self.offset += len(line) + 1
        self._line += rest
        if len(self._line) > LINE:
            raise ProtocolError(PEER, "sent a line without an end", self.offset)
        return replies

    def _reply(self, line: bytes) -> Reply:
        _, delimiter, rest = line.rpartition(_DELIMITER)
        try:
            message = msgspec.json.decode(rest, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as fault:
            raise ProtocolError(PEER, "sent what is no reply", self.offset) from fault
        if isinstance(error := message.get("error"), dict):
            return Reply(bool(delimiter), None, str(error.get("desc", "no reason given")))
        if "return" not in message:
            raise ProtocolError(PEER, "sent what is no reply", self.offset)
        return Reply(bool(delimiter), message["return"], None)


def encode(command: Command) -> bytes:
    """The bytes of a request."""
    message: dict[str, Any] = {"execute": command.name}
    if command.arguments:
        message["arguments"] = dict(command.arguments)
    try:
        return msgspec.json.encode(message) + b"\n"
    except UnicodeEncodeError as fault:
        raise SpecError("text", f"must be valid UTF-8 for {PEER}", fault.object) from None


def sync(number: int) -> bytes:
    """What to send first, and when it is not clear what the agent still owes an answer to."""
    return _DELIMITER + encode(Command("guest-sync-delimited", {"id": number}))


def refused(what: str, reason: str) -> GuestError:
    """The error of a request that was refused; the error number where the text names it."""
    number = next((n for n, text in _ERRORS if reason.endswith(text)), None)
    return GuestError(what, reason, number)


_ERRORS = [(n, os.strerror(n)) for n in range(1, 132)]
