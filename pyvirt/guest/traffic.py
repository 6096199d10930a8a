"""What a guest counts of its network: /proc/net/dev (proc(5))."""

from __future__ import annotations

from attrs import frozen

from pyvirt.errors import ProtocolError


@frozen
class Traffic:
    """Bytes, packets, errors and drops of one interface since the guest started."""

    received: int
    received_packets: int
    receive_errors: int
    receive_drops: int
    sent: int
    sent_packets: int
    send_errors: int
    send_drops: int


def traffic(table: str) -> dict[str, Traffic]:
    """The interfaces of a /proc/net/dev. The guest wrote it: `ProtocolError` for anything else."""
    found: dict[str, Traffic] = {}
    for line in table.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        try:
            counts = [int(word) for word in numbers.split()]
            found[name.strip()] = Traffic(*counts[:4], *counts[8:12])
        except (ValueError, TypeError):
            raise ProtocolError("/proc/net/dev of the guest", "is not a table", 0) from None
    return found
