"""Requests of virtio-scsi (virtio 1.2, 5.6.6).

Drivers may change the sizes of command blocks (32 bytes) and sense data (96 bytes); no driver
known does, and these sizes are taken here.
"""

from __future__ import annotations

import struct

from attrs import frozen

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.requests.cdb import Command, command
from pyvirt.virtio.requests.request import Request, Seen, UnknownRequest, short
from pyvirt.virtio.requests.scsi_control import control, event
from pyvirt.virtio.requests.scsi_lun import Lun, lun
from pyvirt.virtio.requests.sense import Sense, sense

T10_PI = 1 << 3

_HEADER = struct.Struct("<8sQBBB")
_PI = struct.Struct("<II")
_CDB, _SENSE = 32, 96
_RESPONSE = struct.Struct("<IIHBB")  # sense length, residual, status qualifier, status, response
ANSWER_SIZE = _RESPONSE.size + _SENSE

RESPONSES = (
    "ok", "overrun", "aborted", "bad-target", "reset", "busy", "transport-failure",
    "target-failure", "nexus-failure", "failure",
)  # fmt: skip
STATUSES = {
    0x00: "good", 0x02: "check-condition", 0x04: "condition-met", 0x08: "busy",
    0x18: "reservation-conflict", 0x28: "task-set-full", 0x30: "aca-active",
    0x40: "task-aborted",
}  # fmt: skip
_UNMAP_HEAD, _UNMAP_ITEM = 8, struct.Struct(">QI4x")


def request_size(features: int) -> int:
    """Bytes before the data that a request writes."""
    return _HEADER.size + _CDB + (_PI.size if features & T10_PI else 0)


@frozen(kw_only=True, repr=False)
class ScsiRequest(Request):
    """A SCSI command; `length` is the bytes of data that go either way.

    `offset` (bytes) is known for reads and writes: how large a block is shows in how many
    bytes there are for how many blocks. `status` is "good", another SCSI status, or what the
    adapter says of a command that no target answered ("bad-target").
    """

    lun: Lun
    command: Command
    #: Names the request in task management.
    tag: int
    #: Why it failed, where the target says so.
    sense: Sense | None = None
    #: Bytes that were not moved.
    residual: int | None = None
    #: (first block, blocks) that an UNMAP gives back.
    unmaps: tuple[tuple[int, int], ...] = ()

    @property
    def block_size(self) -> int | None:
        """Bytes of a block, where the data tells."""
        blocks = self.command.blocks
        moves = self.operation in ("read", "write") and blocks
        return self.length // blocks if moves and self.length and blocks else None

    def summary(self) -> str:
        """The command by its SCSI name, and its blocks."""
        said = self.command
        parts = [f"{self.lun} {said.name}", *([said.page] if said.page else [])]
        if said.lba is not None:
            parts.append(f"lba {said.lba} blocks {said.blocks}")
        parts += [f"lba {first} blocks {blocks}" for first, blocks in self.unmaps]
        return " ".join(parts)

    def __str__(self) -> str:
        said = Request.__str__(self)
        return f"{said}, {self.sense}" if self.sense else said


def scsi(queue: TracedQueue, captured: Captured, seen: Seen | None = None) -> Request:
    """The request of a virtio-scsi device."""
    if queue.index < 2:
        return (control, event)[queue.index > 0](queue, captured, seen)
    size = request_size(queue.features)
    if len(captured.readable) < size:
        cut = short("header", size, captured.readable, captured.readable_length)
        return UnknownRequest(queue=queue, captured=captured, seen=seen, error=cut)
    address, tag, *_ = _HEADER.unpack_from(captured.readable)
    told = command(captured.readable[size - _CDB : size])
    outgoing = max(0, captured.readable_length - size)
    incoming = max(0, captured.writable_length - ANSWER_SIZE)
    length = outgoing or incoming
    status, residual, why = _answer(captured)
    unmaps, missing = _unmaps(told, captured.readable[size:], outgoing)
    operation = _operation(told)
    return ScsiRequest(
        queue=queue,
        captured=captured,
        seen=seen,
        operation=operation,
        offset=_offset(operation, told, length),
        length=length,
        status=status,
        data=captured.readable[size:] if outgoing else _incoming(captured),
        error=_error(told, captured) or missing,
        lun=lun(address),
        command=told,
        tag=tag,
        sense=why,
        residual=residual,
        unmaps=unmaps,
    )


_OPERATIONS = {
    "READ": "read", "WRITE": "write", "UNMAP": "unmap", "SYNCHRONIZE CACHE": "flush",
    "WRITE AND VERIFY": "write", "WRITE ATOMIC": "write", "WRITE SAME": "write-same",
}  # fmt: skip


def _operation(told: Command) -> str:
    """The same word for READ(6) and READ(16), as virtio-blk has it; else its name in small."""
    plain = told.name.split("(")[0]
    return _OPERATIONS.get(plain, plain.lower().replace(" ", "-"))


def _offset(operation: str, told: Command, length: int) -> int | None:
    if operation not in ("read", "write") or told.lba is None or not told.blocks:
        return None
    return told.lba * (length // told.blocks) if length else None


def _incoming(captured: Captured) -> bytes:
    return captured.writable[ANSWER_SIZE : captured.filled]


def _answer(captured: Captured) -> tuple[str | None, int | None, Sense | None]:
    """Status, residual and sense, where they were captured."""
    if not captured.done or len(captured.writable) < _RESPONSE.size:
        return None, None, None
    size, residual, _, status, response = _RESPONSE.unpack_from(captured.writable)
    if response:
        known = response < len(RESPONSES)
        return RESPONSES[response] if known else f"response-{response}", residual, None
    told = captured.writable[_RESPONSE.size : _RESPONSE.size + min(size, _SENSE)]
    return STATUSES.get(status, f"status-0x{status:02x}"), residual, sense(told)


def _unmaps(
    told: Command, data: bytes, outgoing: int
) -> tuple[tuple[tuple[int, int], ...], str | None]:
    """The blocks of an UNMAP (SBC-4, 5.32), and what is missing of them."""
    if told.opcode != 0x42:
        return (), None
    if len(data) < _UNMAP_HEAD:
        return (), short("UNMAP list", _UNMAP_HEAD, data, outgoing)
    size = min(int.from_bytes(data[2:4], "big"), max(0, outgoing - _UNMAP_HEAD))
    count = size // _UNMAP_ITEM.size
    table = data[_UNMAP_HEAD : _UNMAP_HEAD + count * _UNMAP_ITEM.size]
    known = tuple(_UNMAP_ITEM.iter_unpack(table[: len(table) // _UNMAP_ITEM.size * 16]))
    missing = count - len(known)
    return known, f"{missing} of its {count} ranges were not captured" if missing else None


def _error(told: Command, captured: Captured) -> str | None:
    if told.name.startswith("opcode"):
        return f"{told.name} is not known"
    if captured.writable_length < _RESPONSE.size:
        return f"has {captured.writable_length} bytes of room for its answer"
    return None
