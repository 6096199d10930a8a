"""Traces made by hand: records in the words of a test."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from attrs import field, frozen

from pyvirt.virtio.kinds import VERSION_1
from pyvirt.virtio.records import RECORD, Lost, TracedQueue
from pyvirt.virtio.trace import Trace

MS = 1_000_000
DISK = TracedQueue("disk0", "virtio-blk", "/machine/peripheral/disk0", 0, VERSION_1, 256)
RX = TracedQueue("net0", "virtio-net", "/machine/peripheral/net0", 0, VERSION_1 | 1 << 15, 256)
TX = TracedQueue("net0", "virtio-net", "/machine/peripheral/net0", 1, VERSION_1 | 1 << 15, 256)
SCSI = TracedQueue("scsi0", "virtio-scsi", "/machine/peripheral/scsi0", 2, VERSION_1, 256)


@frozen
class Made:
    """One record; times in ns, `done` 0 for what is in flight."""

    queue: int = 0
    made: int = 0
    done: int = 0
    readable: bytes = b""
    writable: bytes = b""
    readable_length: int | None = None
    writable_length: int | None = None
    written: int | None = None
    order: int = 0
    depth: int = 1
    flags: int = 0
    tail: int = field(default=0)


def trace(
    requests: Sequence[Made],
    queues: Sequence[TracedQueue],
    *,
    lost: Lost | None = None,
    started: int = 0,
    ended: int = 0,
    realtime: int = 0,
) -> Trace:
    """The trace that the sampler would have left of these requests."""
    records, payload = b"", b""
    for one in requests:
        readable = len(one.readable) if one.readable_length is None else one.readable_length
        writable = len(one.writable) if one.writable_length is None else one.writable_length
        written = writable if one.written is None else one.written
        records += RECORD.pack(
            one.made, one.done, one.order, len(payload),
            readable, writable, written if one.done else 0, len(one.readable), len(one.writable),
            one.queue, 0, one.depth, one.flags, 1, one.tail,
        )  # fmt: skip
        payload += one.readable + one.writable
    return Trace(
        records,
        payload,
        queues,
        lost=lost or Lost(),
        started=started,
        ended=ended,
        realtime=realtime,
    )


def blk(kind: int, sector: int, data: bytes = b"") -> bytes:
    """The readable part of a request to virtio-blk."""
    return struct.pack("<IIQ", kind, 0, sector) + data


def read(sector: int, size: int, made: int, took: int, **more: object) -> Made:
    """A read of virtio-blk."""
    done = made + took if took else 0
    return Made(0, made, done, blk(0, sector), writable_length=size + 1, **more)  # type: ignore[arg-type]


def write(sector: int, size: int, made: int, took: int, **more: object) -> Made:
    """A write of virtio-blk, of whose data nothing was kept."""
    done = made + took if took else 0
    return Made(0, made, done, blk(1, sector), readable_length=16 + size, writable_length=1, **more)  # type: ignore[arg-type]


def flush(made: int, took: int, **more: object) -> Made:
    """A flush of virtio-blk."""
    return Made(0, made, made + took if took else 0, blk(4, 0), writable_length=1, **more)  # type: ignore[arg-type]
