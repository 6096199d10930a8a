"""Frames as pcap-ng (IETF draft-ietf-opsawg-pcapng), without their virtio headers."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING

from attrs import frozen

from pyvirt.virtio.kinds import kind_of
from pyvirt.virtio.requests import NetFrame
from pyvirt.virtio.requests.net import joined
from pyvirt.virtio.writing import written

if TYPE_CHECKING:
    from pyvirt.virtio.trace import Trace

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_ORDER = 0x1A2B3C4D
_ETHERNET = 1
_NANOSECONDS = bytes([9])  # a timestamp counts 10**-9 s
_LONGEST = (1 << 32) - 1  # what the format can say of a frame
_RECEIVED, _SENT = 1, 2  # as the guest's card sees it

# Options: of any block, of interfaces, of packets, of statistics.
_COMMENT, _PROGRAM = 1, 4
_NAME, _DESCRIPTION, _RESOLUTION = 2, 3, 9
_DIRECTION = 2
_START, _END, _RECEIVED_COUNT, _DROPPED_COUNT = 2, 3, 4, 5


@frozen
class Packet:
    """A frame; its time is ns since 1970."""

    time: int
    interface: int
    direction: int
    data: bytes
    length: int


def write(trace: Trace, file: str | os.PathLike[str] | IO[bytes]) -> int:
    """Write the frames of a trace; how many there were."""
    cards = tuple(
        dict.fromkeys(one.device for one in trace.queues if kind_of(one.kind) == "virtio-net")
    )
    found, unread = _packets(trace, cards)
    packets = sorted(found, key=lambda packet: packet.time)
    written(file, _blocks(trace, cards, packets, unread))
    return len(packets)


def _packets(trace: Trace, cards: Sequence[str]) -> tuple[list[Packet], dict[str, int]]:
    """The frames, and how many of each card could not be read."""
    packets, unread = [], dict.fromkeys(cards, 0)
    for place, queue in enumerate(map(trace.queue_of, range(len(trace)))):
        if queue.device not in unread or queue.name == "control":
            continue
        request = trace[place]
        if isinstance(request, NetFrame) and request.header:
            packets.append(_packet(trace, place, request, cards.index(queue.device)))
        elif request.error:
            unread[queue.device] += 1
    return packets, unread


def _packet(trace: Trace, place: int, first: NetFrame, interface: int) -> Packet:
    places = (place, *trace.merged.get(place, ()))
    data, length = joined([first, *(trace[other] for other in places[1:])])
    length = min(length, _LONGEST)
    if first.operation == "transmit":
        return Packet(trace.realtime + trace.columns["made"][place], interface, _SENT, data, length)
    done = max(trace.columns["done"][other] for other in places)
    return Packet(trace.realtime + done, interface, _RECEIVED, data, length)


def _blocks(
    trace: Trace, cards: Sequence[str], packets: Sequence[Packet], unread: dict[str, int]
) -> Iterator[bytes]:
    yield _block(_SECTION, struct.pack("<IHHq", _ORDER, 1, 0, -1), [(_PROGRAM, b"pyvirt")])
    for card in cards:
        options = [
            (_NAME, card.encode()),
            (_DESCRIPTION, b"virtio-net, read from its rings"),
            (_RESOLUTION, _NANOSECONDS),
        ]
        yield _block(_INTERFACE, struct.pack("<HHI", _ETHERNET, 0, 0), options)
    for packet in packets:
        yield _packet_block(packet)
    for number, card in enumerate(cards):
        yield _statistics(trace, number, packets, unread[card])


def _packet_block(packet: Packet) -> bytes:
    data = packet.data[: packet.length]
    fixed = struct.pack("<I", packet.interface) + _time(packet.time)
    fixed += struct.pack("<II", len(data), packet.length) + _padded(data)
    return _block(_PACKET, fixed, [(_DIRECTION, struct.pack("<I", packet.direction))])


def _statistics(trace: Trace, number: int, packets: Sequence[Packet], unread: int) -> bytes:
    """How many packets an interface had, and lost: what was missed is known of all queues only."""
    count = sum(packet.interface == number for packet in packets)
    lost = trace.lost.requests + trace.lost.dropped
    end = _time(trace.realtime + trace.ended)
    options = [
        (_START, _time(trace.realtime + trace.started)),
        (_END, end),
        (_RECEIVED_COUNT, struct.pack("<Q", count + unread)),
        (_DROPPED_COUNT, struct.pack("<Q", lost + unread)),
    ]
    if trace.lost:
        options.append((_COMMENT, f"of all traced queues together: {trace.lost}".encode()))
    return _block(_STATISTICS, struct.pack("<I", number) + end, options)


def _time(nanoseconds: int) -> bytes:
    return struct.pack("<II", nanoseconds >> 32 & 0xFFFFFFFF, nanoseconds & 0xFFFFFFFF)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _block(kind: int, fixed: bytes, options: Sequence[tuple[int, bytes]]) -> bytes:
    """A block with its length before and after it."""
    told = b"".join(struct.pack("<HH", code, len(text)) + _padded(text) for code, text in options)
    body = fixed + told + bytes(4)  # the last option is the end of options
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size
