"""Requests of virtio-blk (virtio 1.2, 5.2.6)."""

from __future__ import annotations

import struct

from attrs import frozen

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.requests.request import Request, Seen, UnknownRequest, last, short

SECTOR = 512
_HEADER = struct.Struct("<IIQ")  # type, reserved (legacy: I/O priority), sector
_RANGE = struct.Struct("<QII")  # sector, sectors, flags
_UNMAP = 1
_BARRIER = 1 << 31  # of devices before the standard

READ, WRITE, FLUSH, GET_ID, GET_LIFETIME = 0, 1, 4, 8, 10
DISCARD, WRITE_ZEROES, SECURE_ERASE = 11, 13, 14
_RANGED = (DISCARD, WRITE_ZEROES, SECURE_ERASE)

TYPES = {
    READ: "read", WRITE: "write", 2: "scsi-command", 3: "scsi-command", FLUSH: "flush",
    GET_ID: "get-id", GET_LIFETIME: "get-lifetime", DISCARD: "discard",
    WRITE_ZEROES: "write-zeroes", SECURE_ERASE: "secure-erase", 15: "zone-append",
    16: "zone-report", 18: "zone-open", 20: "zone-close", 22: "zone-finish", 24: "zone-reset",
    26: "zone-reset-all",
}  # fmt: skip
STATUSES = {
    0: "ok", 1: "ioerr", 2: "unsupp", 3: "zone-invalid", 4: "zone-unaligned",
    5: "zone-open-resource", 6: "zone-active-resource",
}  # fmt: skip


@frozen
class BlkRange:
    """Bytes that a discard, a secure erase or a write of zeroes concerns."""

    offset: int
    length: int
    #: Of zeroes: whether the blocks may be given back.
    unmap: bool = False


@frozen(kw_only=True, repr=False)
class BlkRequest(Request):
    """A request to a disk; `offset` and `length` in bytes.

    `length` is 0 for a flush, and for ranges the sum of them, where `offset` is that of the
    first.
    """

    #: The number of its type, and the sector (512 bytes) that its header names.
    type: int
    sector: int
    ranges: tuple[BlkRange, ...] = ()

    @property
    def identity(self) -> str:
        """The serial number that a get-id was answered with; "" for others."""
        return self.data.split(b"\0")[0].decode("latin-1") if self.type == GET_ID else ""


def block(queue: TracedQueue, captured: Captured, seen: Seen | None = None) -> Request:
    """The request of a virtio-blk device."""
    if len(captured.readable) < _HEADER.size:
        why = short("header", _HEADER.size, captured.readable, captured.readable_length)
        return UnknownRequest(queue=queue, captured=captured, seen=seen, error=why)
    number, _, sector = _HEADER.unpack_from(captured.readable)
    kind = number & ~_BARRIER
    ranges = tuple(_ranges(captured)) if kind in _RANGED else ()
    return BlkRequest(
        queue=queue,
        captured=captured,
        seen=seen,
        operation=TYPES.get(kind, f"type-{number}"),
        offset=_offset(kind, sector, ranges),
        length=_length(kind, captured, ranges),
        status=_status(captured),
        data=_data(kind, captured),
        error=_error(kind, captured, ranges),
        type=number,
        sector=sector,
        ranges=ranges,
    )


def _offset(kind: int, sector: int, ranges: tuple[BlkRange, ...]) -> int | None:
    if kind in _RANGED:
        return ranges[0].offset if ranges else None
    return None if kind in (FLUSH, GET_ID, GET_LIFETIME, 26) else sector * SECTOR


def _outgoing(captured: Captured) -> int:
    return max(0, captured.readable_length - _HEADER.size)


def _incoming(captured: Captured) -> int:
    return max(0, captured.writable_length - 1)


def _length(kind: int, captured: Captured, ranges: tuple[BlkRange, ...]) -> int:
    if kind in _RANGED:
        return sum(one.length for one in ranges)
    if kind == FLUSH:
        return 0
    return _outgoing(captured) or _incoming(captured)


def _ranges(captured: Captured) -> list[BlkRange]:
    whole = _outgoing(captured) // _RANGE.size * _RANGE.size
    table = captured.readable[_HEADER.size : _HEADER.size + whole]
    table = table[: len(table) // _RANGE.size * _RANGE.size]
    return [
        BlkRange(sector * SECTOR, sectors * SECTOR, bool(flags & _UNMAP))
        for sector, sectors, flags in _RANGE.iter_unpack(table)
    ]


def _data(kind: int, captured: Captured) -> bytes:
    if _outgoing(captured):
        return captured.readable[_HEADER.size :]
    return captured.writable[: _incoming(captured)] if captured.done else b""


def _status(captured: Captured) -> str | None:
    """The byte behind everything else that the device may write."""
    answer = last(captured)
    return None if answer is None else STATUSES.get(answer, f"status-{answer}")


def _error(kind: int, captured: Captured, ranges: tuple[BlkRange, ...]) -> str | None:
    if kind not in TYPES:
        return f"type {kind} is not known"
    if not captured.writable_length:
        return "has no room for its status"
    if kind in _RANGED:
        return _ranges_error(captured, ranges)
    size = _length(kind, captured, ranges)
    if kind in (READ, WRITE) and size % SECTOR:
        return f"moves {size} bytes, which are no whole sectors"
    return None


def _ranges_error(captured: Captured, ranges: tuple[BlkRange, ...]) -> str | None:
    size = _outgoing(captured)
    if not size or size % _RANGE.size:
        return f"has {size} bytes of ranges, each of which takes {_RANGE.size}"
    missing = size // _RANGE.size - len(ranges)
    return f"{missing} of its {size // _RANGE.size} ranges were not captured" if missing else None
