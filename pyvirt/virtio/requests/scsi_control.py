"""The control and event queues of virtio-scsi (virtio 1.2, 5.6.6.2 and 5.6.6.3)."""

from __future__ import annotations

import struct

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.requests.request import (
    ControlRequest,
    Request,
    Seen,
    UnknownRequest,
    last,
    short,
)
from pyvirt.virtio.requests.scsi_lun import lun

_TMF = struct.Struct("<II8sQ")
_ASYNCHRONOUS = struct.Struct("<I8sI")
_EVENT = struct.Struct("<I8sI")
_MISSED = 1 << 31

TASKS = (
    "ABORT_TASK", "ABORT_TASK_SET", "CLEAR_ACA", "CLEAR_TASK_SET", "I_T_NEXUS_RESET",
    "LOGICAL_UNIT_RESET", "QUERY_TASK", "QUERY_TASK_SET",
)  # fmt: skip
TYPES = ("TMF", "AN_QUERY", "AN_SUBSCRIBE")
EVENTS = ("NO_EVENT", "TRANSPORT_RESET", "ASYNC_NOTIFY", "PARAM_CHANGE")
_RESPONSES = {
    0: "complete", 3: "bad-target", 5: "busy", 6: "transport-failure", 7: "target-failure",
    8: "nexus-failure", 9: "failure", 10: "succeeded", 11: "rejected", 12: "incorrect-lun",
}  # fmt: skip


def control(queue: TracedQueue, captured: Captured, seen: Seen | None) -> Request:
    """Task management, or a wish for events."""
    message = captured.readable
    number = int.from_bytes(message[:4], "little") if len(message) >= 4 else 0
    layout = _ASYNCHRONOUS if number in (1, 2) else _TMF
    if len(message) < layout.size:
        why = short("header", layout.size, message, captured.readable_length)
        return UnknownRequest(queue=queue, captured=captured, seen=seen, error=why)
    if number == 0:
        _, subtype, address, tag = _TMF.unpack_from(message)
        name = TASKS[subtype] if subtype < len(TASKS) else f"subtype-{subtype}"
        operation, details = f"TMF {name}", (("lun", str(lun(address))), ("tag", tag))
    else:
        _, address, wanted = _ASYNCHRONOUS.unpack_from(message)
        operation = TYPES[number] if number < len(TYPES) else f"type-{number}"
        details = (("lun", str(lun(address))), ("events", wanted))
    return ControlRequest(
        queue=queue,
        captured=captured,
        seen=seen,
        operation=operation,
        details=details,
        status=_response(captured),
        error=None if number < len(TYPES) else f"type {number} is not known",
    )


def _response(captured: Captured) -> str | None:
    """The last byte of what the device may write, for each of the three."""
    answer = last(captured)
    return None if answer is None else _RESPONSES.get(answer, f"response-{answer}")


def event(queue: TracedQueue, captured: Captured, seen: Seen | None) -> Request:
    """A buffer for an event, or one that has come."""
    if not captured.done:
        return ControlRequest(queue=queue, captured=captured, seen=seen, operation="receive")
    message = captured.writable[: captured.filled]
    if len(message) < _EVENT.size:
        why = short("event", _EVENT.size, message, captured.filled)
        return UnknownRequest(queue=queue, captured=captured, seen=seen, error=why)
    number, address, reason = _EVENT.unpack_from(message)
    kind = number & ~_MISSED
    return ControlRequest(
        queue=queue,
        captured=captured,
        seen=seen,
        operation=EVENTS[kind] if kind < len(EVENTS) else f"event-{kind}",
        length=_EVENT.size,
        data=message,
        details=(
            ("lun", str(lun(address))), ("reason", reason), ("missed", bool(number & _MISSED)),
        ),
        error=None if kind < len(EVENTS) else f"event {kind} is not known",
    )  # fmt: skip
