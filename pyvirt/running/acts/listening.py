"""Waiting for a listener, or for words on the console."""

from __future__ import annotations

import re
import time
from typing import Any

from pyvirt.errors import TimedOut
from pyvirt.flows.steps import Act, Within
from pyvirt.qmp.flow import Pause
from pyvirt.running.acts.base import Answering

#: Seconds between two questions whether a port is open, the first and the most.
FIRST, MOST = 0.02, 0.5


class Listening(Answering):
    """What a VM and a container are waited for alike."""

    def _serial(self, pattern: str | re.Pattern[str], timeout: float) -> Act[Any]:
        what = f"{re.compile(pattern).pattern!r} on the serial port"
        heard = self.place.first_console().expect(pattern)
        try:
            return (yield Within(heard, timeout, what))
        finally:
            heard.cancel()  # or it would take the text from the next who waits

    def _port(self, port: int, proto: str, limit: float, timeout: float) -> Act[None]:
        carrier = yield from self.agent(left(limit))
        pause = FIRST
        what = f"a listener on {proto} port {port} in the guest"
        while not (yield Within(carrier.listening(port, proto), left(limit), what)):
            if time.monotonic() > limit:
                raise TimedOut(what, timeout)
            yield Pause(pause)
            pause = min(2 * pause, MOST)


def left(limit: float) -> float:
    """Seconds until `limit`, as `time.monotonic` counts; 0 after it."""
    return max(0.0, limit - time.monotonic())
