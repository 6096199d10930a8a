"""The control queue of virtio-net (virtio 1.2, 5.1.6.5)."""

from __future__ import annotations

import struct

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.features import names
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.requests.frames import mac
from pyvirt.virtio.requests.request import (
    ControlRequest,
    Request,
    Seen,
    UnknownRequest,
    last,
    short,
)

Details = tuple[tuple[str, object], ...]

COMMANDS = {
    0: ("RX", ("PROMISC", "ALLMULTI", "ALLUNI", "NOMULTI", "NOUNI", "NOBCAST")),
    1: ("MAC", ("TABLE_SET", "ADDR_SET")),
    2: ("VLAN", ("ADD", "DEL")),
    3: ("ANNOUNCE", ("ACK",)),
    4: ("MQ", ("VQ_PAIRS_SET", "RSS_CONFIG", "HASH_CONFIG")),
    5: ("GUEST_OFFLOADS", ("SET",)),
    6: ("NOTF_COAL", ("TX_SET", "RX_SET", "VQ_SET", "VQ_GET")),
    7: ("STATS", ("QUERY", "GET")),
}
_ACK = {0: "ok", 1: "err"}


def control(queue: TracedQueue, captured: Captured, seen: Seen | None) -> Request:
    """A command to a virtio-net device."""
    command = captured.readable
    if len(command) < 2:
        cut = short("header", 2, command, captured.readable_length)
        return UnknownRequest(queue=queue, captured=captured, seen=seen, error=cut)
    group, commands = COMMANDS.get(command[0], (f"class-{command[0]}", ()))
    known = command[1] < len(commands)
    name = f"{group} {commands[command[1]] if known else f'command-{command[1]}'}"
    details: Details = ()
    why = None if known else f"{name} is not known"
    try:
        details = _details(name, command[2:])
    except (struct.error, IndexError):
        why = f"{len(command) - 2} bytes are too few for what {name} says"
    return ControlRequest(
        queue=queue,
        captured=captured,
        seen=seen,
        operation=name,
        length=captured.readable_length - 2,
        data=command[2:],
        details=details,
        status=_answer(captured),
        error=why,
    )


def _answer(captured: Captured) -> str | None:
    ack = last(captured)
    return None if ack is None else _ACK.get(ack, f"ack-{ack}")


def _details(name: str, rest: bytes) -> Details:
    if name.startswith("RX "):
        return (("on", bool(rest[0])),)
    if name == "MAC ADDR_SET":
        return (("mac", mac(struct.unpack_from("6s", rest)[0])),)
    if name == "MAC TABLE_SET":
        unicast, rest = _addresses(rest)
        return (("unicast", unicast), ("multicast", _addresses(rest)[0]))
    if name.startswith("VLAN "):
        return (("vlan", struct.unpack_from("<H", rest)[0]),)
    if name == "MQ VQ_PAIRS_SET":
        return (("pairs", struct.unpack_from("<H", rest)[0]),)
    if name == "GUEST_OFFLOADS SET":
        offloads = struct.unpack_from("<Q", rest)[0]
        return (("offloads", names("virtio-net", offloads)),)
    if name in ("NOTF_COAL TX_SET", "NOTF_COAL RX_SET"):
        packets, microseconds = struct.unpack_from("<II", rest)
        return (("packets", packets), ("seconds", microseconds / 1e6))
    return ()


def _addresses(rest: bytes) -> tuple[tuple[str, ...], bytes]:
    """A counted table of Ethernet addresses, and what follows it."""
    (count,) = struct.unpack_from("<I", rest)
    end = 4 + count * 6
    if end > len(rest):
        raise IndexError(count)
    return tuple(mac(rest[at : at + 6]) for at in range(4, end, 6)), rest[end:]
