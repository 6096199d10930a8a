"""The agents that may answer in a guest, by the names that `VM.agents` knows."""

from __future__ import annotations

import socket
from collections.abc import Callable

from pyvirt.guest.carrier import Carrier
from pyvirt.running.agent import NativeAgent
from pyvirt.running.qga import QemuGuestAgent


def connect(agent: str, sock: socket.socket, explain: Callable[[], str]) -> Carrier:
    """Speak with `agent` on `sock`; it may begin to answer at any time."""
    kinds: dict[str, type[Carrier]] = {"pyvirt": NativeAgent, "qga": QemuGuestAgent}
    return kinds[agent](sock, explain=explain)
