"""The records of a trace: how one request stands in memory, and what a trace says of queues.

csrc/pv_trace.h writes them; each is `RECORD`, 64 bytes, little-endian:

    offset type  name
     0     u64   made              ns of CLOCK_MONOTONIC when it was seen made available
     8     u64   done              the same when it was seen used; 0: still in flight at the end
    16     u64   order             counts the requests of one queue as they were made
    24     u64   payload           where its bytes begin in the payload: readable, then writable
    32     u32   readable          bytes of the device-readable part
    36     u32   writable          bytes of the device-writable part
    40     u32   written           bytes that the device says it has written
    44     u32   snapped_readable  bytes of the readable part that are in the payload
    48     u32   snapped_writable  bytes of the writable part that are in the payload
    52     u16   queue             index into the trace's queues
    54     u16   head              index (split) or id (packed) of the chain
    56     u16   depth             requests in flight on the queue when it was made, with it
    58     u16   flags             `Flag`
    60     u16   descriptors       of its chain, those of an indirect table included
    62     u8    tail              the last byte of the writable part
    63     u8    reserved          0
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntFlag
from typing import Literal

from attrs import frozen

from pyvirt.virtio.kinds import queue_name

_TYPES: tuple[Literal["B", "H", "I", "Q"], ...] = (*4 * ("Q",), *5 * ("I",), *5 * ("H",), "B")
RECORD = struct.Struct(f"<{''.join(_TYPES)}x")
NAMES = (
    "made", "done", "order", "payload",
    "readable", "writable", "written", "snapped_readable", "snapped_writable",
    "queue", "head", "depth", "flags", "descriptors",
    "tail",
)  # fmt: skip

#: Of each field its type, its offset, and its size in bytes.
COLUMNS: Mapping[str, tuple[Literal["B", "H", "I", "Q"], int, int]] = {
    name: (kind, struct.calcsize(f"<{''.join(_TYPES[:place])}"), struct.calcsize(kind))
    for place, (name, kind) in enumerate(zip(NAMES, _TYPES, strict=True))
}


class Flag(IntFlag):
    """What is not certain of a record."""

    #: The guest may have used the descriptors again before they were copied.
    CHAIN_UNCERTAIN = 1
    #: Fewer bytes were kept than the request has.
    SNAP_CUT = 2
    #: It was done when it was first seen: it was made at `made` or before.
    COMPLETED_FIRST_SEEN = 4
    #: The bytes that the device wrote, its status too, may be of a later request.
    RESULT_UNCERTAIN = 8


@frozen
class TracedQueue:
    """One queue that was traced."""

    #: The id of the device ("disk0"), and its kind as QEMU calls it ("virtio-blk").
    device: str
    kind: str
    #: Where QEMU keeps the device ("/machine/peripheral/disk0/virtio-backend").
    path: str
    #: Its number within the device.
    index: int
    #: The feature bits that device and driver agreed on.
    features: int = 0
    #: Descriptors that the ring has room for; 0 where unknown.
    size: int = 0
    #: How many queues the device has; 0 where unknown.
    queues: int = 0

    @property
    def name(self) -> str:
        """What the queue is for: "rx0", "control", "request2"."""
        return queue_name(self.kind, self.index, features=self.features, queues=self.queues)


@frozen
class Lost:
    """What a trace did not see; all 0 is a whole trace."""

    #: Requests that came and went between two looks.
    requests: int = 0
    #: Requests whose descriptors may have been used again before they were copied.
    uncertain: int = 0
    #: Records that found no room, because nobody took the ones before.
    dropped: int = 0

    def __bool__(self) -> bool:
        return bool(self.requests or self.uncertain or self.dropped)

    def __add__(self, other: Lost) -> Lost:
        return Lost(
            self.requests + other.requests,
            self.uncertain + other.uncertain,
            self.dropped + other.dropped,
        )

    def __str__(self) -> str:
        return (
            f"{self.requests} requests missed, {self.uncertain} uncertain, {self.dropped} dropped"
            if self
            else "nothing lost"
        )
