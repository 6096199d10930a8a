"""The agents that may answer in a guest, by the names that `VM.agents` knows."""

from __future__ import annotations

import socket
from collections.abc import Callable

from pyvirt.guest.carrier import Carrier


def connect(agent: str, sock: socket.socket, explain: Callable[[], str]) -> Carrier:
    """Speak with `agent` ("pyvirt" or "qga") on `sock`; it may begin to answer at any time."""
    if agent == "qga":
        from pyvirt.running.agents.qga import QemuGuestAgent

        return QemuGuestAgent(sock, explain)
    from pyvirt.running.agents.native import NativeAgent

    return NativeAgent(sock, explain)
