"""Frames of virtio-net with their headers (virtio 1.2, 5.1.6)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from attrs import evolve, frozen

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.kinds import VERSION_1
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.requests.frames import frame_summary
from pyvirt.virtio.requests.net_control import control
from pyvirt.virtio.requests.request import Request, Seen, UnknownRequest, short

MRG_RXBUF, CTRL_VQ, HASH_REPORT = 1 << 15, 1 << 17, 1 << 57

_HEADER = struct.Struct("<BBHHHH")
_BUFFERS = struct.Struct("<H")
_HASH = struct.Struct("<IH")

_FLAGS = {1: "NEEDS_CSUM", 2: "DATA_VALID", 4: "RSC_INFO"}
_GSO = {0: "NONE", 1: "TCPV4", 3: "UDP", 4: "TCPV6", 5: "UDP_L4"}
_ECN = 0x80


def header_size(features: int) -> int:
    """Bytes of the header before each frame, by what was agreed on."""
    if features & HASH_REPORT:
        return 20
    return 12 if features & (VERSION_1 | MRG_RXBUF) else 10


@frozen
class NetHeader:
    """What is said of a frame before it; sizes and places in bytes of the frame."""

    flags: tuple[str, ...]
    #: "NONE", or how the frame is to be cut into several: "TCPV4", "TCPV6", "UDP", "UDP_L4".
    gso_type: str
    #: Whether the TCP of it has ECN set.
    ecn: bool
    hdr_len: int
    gso_size: int
    csum_start: int
    csum_offset: int
    #: Receive buffers that the frame fills, with MRG_RXBUF; None where headers have no such field.
    num_buffers: int | None = None
    #: What the device computed for steering, with HASH_REPORT.
    hash_value: int | None = None
    hash_report: int | None = None


@frozen(kw_only=True, repr=False)
class NetFrame(Request):
    """A frame that a guest sends ("transmit") or gets ("receive").

    `data` has its first bytes, without the virtio header; `length` is its whole length. A
    receive buffer that is still empty has no header and length 0. A frame larger than a
    receive buffer goes on in the next ones (MRG_RXBUF): those are `continued`, have no header,
    and the first says in `header.num_buffers` how many there are.
    """

    header: NetHeader | None = None
    continued: bool = False

    @property
    def cut(self) -> bool:
        """Whether fewer bytes were captured than the frame has."""
        return len(self.data) < self.length

    def summary(self) -> str:
        """The frame as tcpdump would tell it."""
        if self.continued:
            return f"{Request.summary(self)}, more of the frame before"
        if self.header is None:
            return f"{self.operation} buffer"
        gso = "" if self.header.gso_type == "NONE" else f", GSO {self.header.gso_type}"
        told = frame_summary(self.data)
        return f"{self.operation} {told}, length {self.length}{gso}"


def net(queue: TracedQueue, captured: Captured, seen: Seen | None = None) -> Request:
    """The request of a virtio-net device."""
    if _is_control(queue, captured):
        return control(queue, captured, seen)
    sent = queue.index % 2 == 1
    whole, length = (
        (captured.readable, captured.readable_length) if sent
        else (_received(captured), captured.filled)
    )  # fmt: skip
    if not sent and not captured.done:
        return _frame(queue, captured, seen)
    size = header_size(queue.features)
    if len(whole) < size:
        why = short("header", size, whole, length)
        return UnknownRequest(queue=queue, captured=captured, seen=seen, error=why)
    header = _header(whole, size)
    made = _frame(queue, captured, seen)
    return evolve(
        made, header=header, data=whole[size:], length=length - size, error=_error(header)
    )


def continuation(queue: TracedQueue, captured: Captured, seen: Seen | None = None) -> NetFrame:
    """A receive buffer into which the frame of the one before goes on."""
    made = _frame(queue, captured, seen)
    data = _received(captured)
    return evolve(made, continued=True, data=data, length=captured.filled)


def joined(parts: Sequence[Request]) -> tuple[bytes, int]:
    """A frame from the receive buffers that it fills: its known first bytes and its length."""
    data = b""
    for part in parts:
        data += part.data
        if len(part.data) < part.length:
            break
    return data, sum(part.length for part in parts)


def _is_control(queue: TracedQueue, captured: Captured) -> bool:
    """By its name, or where queues are not counted because it has a part that a buffer lacks."""
    if queue.name == "control":
        return True
    even = queue.index % 2 == 0 and queue.index >= 2
    return bool(even and queue.features & CTRL_VQ and captured.readable_length)


def _received(captured: Captured) -> bytes:
    return captured.writable[: captured.filled]


def _frame(queue: TracedQueue, captured: Captured, seen: Seen | None) -> NetFrame:
    operation = "transmit" if queue.index % 2 else "receive"
    return NetFrame(queue=queue, captured=captured, seen=seen, operation=operation)


def _header(whole: bytes, size: int) -> NetHeader:
    flags, gso, hdr_len, gso_size, csum_start, csum_offset = _HEADER.unpack_from(whole)
    told = [name for mask, name in _FLAGS.items() if flags & mask]
    if flags & ~7:
        told.append(f"0x{flags & ~7:x}")
    kind = gso & ~_ECN
    buffers = _BUFFERS.unpack_from(whole, 10)[0] if size >= 12 else None
    value, report = _HASH.unpack_from(whole, 12) if size >= 20 else (None, None)
    return NetHeader(
        tuple(told),
        _GSO.get(kind, f"type-{kind}"),
        bool(gso & _ECN),
        hdr_len,
        gso_size,
        csum_start,
        csum_offset,
        buffers,
        value,
        report,
    )


def _error(header: NetHeader) -> str | None:
    if header.gso_type.startswith("type-"):
        return f"GSO {header.gso_type} is not known"
    return None
