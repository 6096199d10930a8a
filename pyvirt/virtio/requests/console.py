"""Data and control messages of virtio-serial and virtio-console (virtio 1.2, 5.3.6)."""

from __future__ import annotations

import struct

from attrs import frozen

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.kinds import serial_port
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.requests.request import ControlRequest, Request, Seen, UnknownRequest, short

_MESSAGE = struct.Struct("<IHH")  # port, event, value
_SIZE = struct.Struct("<HH")  # columns, rows
_RESIZE, _NAME = 5, 7

EVENTS = (
    "DEVICE_READY", "DEVICE_ADD", "DEVICE_REMOVE", "PORT_READY", "CONSOLE_PORT", "RESIZE",
    "PORT_OPEN", "PORT_NAME",
)  # fmt: skip


@frozen(kw_only=True, repr=False)
class ConsoleData(Request):
    """Bytes that a guest sends ("transmit") through a port, or gets ("receive")."""

    port: int

    def summary(self) -> str:
        """How much went through which port, and its first bytes."""
        shown = f" {self.data[:40]!r}" if self.data else ""
        return f"port {self.port} {Request.summary(self)}{shown}"


def console(queue: TracedQueue, captured: Captured, seen: Seen | None = None) -> Request:
    """The request of a virtio-serial device."""
    if queue.index in (2, 3):
        return _control(queue, captured, seen)
    sent = queue.index % 2 == 1
    return ConsoleData(
        queue=queue,
        captured=captured,
        seen=seen,
        operation="transmit" if sent else "receive",
        length=captured.readable_length if sent else captured.filled,
        data=captured.readable if sent else _received(captured),
        port=serial_port(queue.index),
    )


def _received(captured: Captured) -> bytes:
    return captured.writable[: captured.filled]


def _control(queue: TracedQueue, captured: Captured, seen: Seen | None) -> Request:
    sent = queue.index == 3
    message = captured.readable if sent else _received(captured)
    length = captured.readable_length if sent else captured.filled
    if not sent and not captured.done:
        return ControlRequest(queue=queue, captured=captured, seen=seen, operation="receive")
    if len(message) < _MESSAGE.size:
        why = short("message", _MESSAGE.size, message, length)
        return UnknownRequest(queue=queue, captured=captured, seen=seen, error=why)
    port, event, value = _MESSAGE.unpack_from(message)
    rest = message[_MESSAGE.size :]
    return ControlRequest(
        queue=queue,
        captured=captured,
        seen=seen,
        operation=EVENTS[event] if event < len(EVENTS) else f"event-{event}",
        length=length,
        data=message,
        details=(("port", port), ("value", value), *_more(event, rest)),
        error=None if event < len(EVENTS) else f"event {event} is not known",
    )


def _more(event: int, rest: bytes) -> tuple[tuple[str, object], ...]:
    if event == _NAME:
        return (("name", rest.split(b"\0")[0].decode("utf-8", "replace")),)
    if event == _RESIZE and len(rest) >= _SIZE.size:
        columns, rows = _SIZE.unpack_from(rest)
        return (("columns", columns), ("rows", rows))
    return ()
