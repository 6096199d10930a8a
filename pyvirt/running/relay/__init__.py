"""Ports of this host that lead into a guest through its agent, where no user network does.

A relay listens on this host. Each connection, and for UDP each peer, becomes a stream of the
agent to a socket in the guest. All of it happens on the I/O thread; what waits is bounded by
the streams' credit and by the socket buffers, so a slow end holds the other one back.
"""

from __future__ import annotations

from pyvirt.nic import Forward
from pyvirt.running.relay.base import Dial, Relay
from pyvirt.running.relay.tcp import TcpRelay
from pyvirt.running.relay.udp import UdpRelay

__all__ = ["Dial", "Relay", "open_relay"]


def open_relay(wanted: Forward, dial: Dial) -> Relay:
    """Listen for `wanted`; `OSError` when the port is taken."""
    return (TcpRelay if wanted.proto == "tcp" else UdpRelay)(wanted, dial)
