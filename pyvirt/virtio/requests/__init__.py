"""Requests of virtio devices, decoded from the bytes that were seen of them.

    from pyvirt.virtio.captured import Captured
    from pyvirt.virtio.requests import decode

    header = bytes.fromhex("01000000 00000000 0800000000000000")
    seen = Captured(header, 16 + 4096, b"", 1, written=1, tail=0)
    assert str(decode("virtio-blk", 0, seen)) == "write 4 KiB at 4096, ok"

Whatever the bytes are, a request comes out: `error` says what is wrong with it. Numbers are
little-endian, as in every guest that pyvirt starts; before virtio 1.0 they were the guest's.
"""

from __future__ import annotations

from collections.abc import Callable

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.kinds import kind_of
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.requests.block import BlkRange, BlkRequest, block
from pyvirt.virtio.requests.cdb import Command
from pyvirt.virtio.requests.console import ConsoleData, console
from pyvirt.virtio.requests.memory import BalloonRequest, RngRequest, balloon, rng
from pyvirt.virtio.requests.net import NetFrame, NetHeader, net
from pyvirt.virtio.requests.request import ControlRequest, Request, Seen, UnknownRequest
from pyvirt.virtio.requests.scsi import ScsiRequest, scsi
from pyvirt.virtio.requests.scsi_lun import Lun
from pyvirt.virtio.requests.sense import Sense

__all__ = [
    "BalloonRequest", "BlkRange", "BlkRequest", "Command", "ConsoleData", "ControlRequest", "Lun",
    "NetFrame", "NetHeader", "Request", "RngRequest", "ScsiRequest", "Seen", "Sense",
    "UnknownRequest", "decode", "decoded",
]  # fmt: skip

_Decoder = Callable[[TracedQueue, Captured, Seen | None], Request]

_DECODERS: dict[str, _Decoder] = {
    "virtio-blk": block,
    "virtio-net": net,
    "virtio-scsi": scsi,
    "virtio-serial": console,
    "virtio-rng": rng,
    "virtio-balloon": balloon,
}


def decode(
    device: str, queue: int, captured: Captured, *, features: int = 0, queues: int = 0
) -> Request:
    """A request to queue number `queue` of a kind of device ("virtio-blk").

    `features` are the bits that were agreed on; `queues` is how many the device has, which
    virtio-net with several pairs needs to name its control queue (0: unknown).
    """
    place = TracedQueue("", kind_of(device), "", queue, features, queues=queues)
    return decoded(place, captured)


def decoded(queue: TracedQueue, captured: Captured, seen: Seen | None = None) -> Request:
    """The same for a queue with a name, and with the times at which it was seen."""
    known = _DECODERS.get(kind_of(queue.kind))
    if known is None:
        return UnknownRequest(queue=queue, captured=captured, seen=seen)
    return known(queue, captured, seen)
