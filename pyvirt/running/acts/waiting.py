"""Acts that wait until something is so in the guest."""

from __future__ import annotations

import re
import time
from typing import Any

from pyvirt.errors import SpecError, TimedOut
from pyvirt.flows.steps import Act, Within
from pyvirt.guest.command import check_port
from pyvirt.qmp.flow import Pause
from pyvirt.running.acts.base import BOOT
from pyvirt.running.acts.look import Look
from pyvirt.screen.text import Reading

#: Seconds between two questions whether a port is open, the first and the most.
FIRST, MOST = 0.02, 0.5

#: Seconds between two looks at the screen: reading it takes a tenth of that.
LOOK = 0.3


class Waiting(Look):
    """Waiting for ports, text and agents."""

    def wait_for(
        self,
        *,
        agent: bool = False,
        serial: str | re.Pattern[str] | None = None,
        port: int | None = None,
        text: str | re.Pattern[str] | None = None,
        proto: str = "tcp",
        timeout: float = BOOT,
    ) -> Act[re.Match[str] | None]:
        """Wait, at most `timeout` seconds, until all that is asked for is so.

        `agent`: an agent answers. `serial`: a regular expression appears on the first serial
        port, after what was matched before. `port`: something in the guest listens on it.
        `text`: a regular expression is on the screen (`screen_text` tells how it is read).
        The match of `serial` or `text` is the result. When the VM ends meanwhile,
        `ClosedError` is raised.
        """
        if not agent and serial is None and port is None and text is None:
            raise SpecError("agent", "or serial, port or text must be asked for", agent)
        if port is not None:
            check_port(port)
        limit = time.monotonic() + timeout
        match: Any = None
        if serial is not None:
            match = yield from self._serial(serial, timeout)
        if agent:
            yield from self.agent(_left(limit))
        if port is not None:
            yield from self._port(port, proto, limit, timeout)
        if text is not None:
            match = yield from self._text(text, limit, timeout)
        return match  # type: ignore[no-any-return]

    def _serial(self, pattern: str | re.Pattern[str], timeout: float) -> Act[Any]:
        what = f"{re.compile(pattern).pattern!r} on the serial port"
        heard = self.engine.first_console().expect(pattern)
        try:
            return (yield Within(heard, timeout, what))
        finally:
            heard.cancel()  # or it would take the text from the next who waits

    def _port(self, port: int, proto: str, limit: float, timeout: float) -> Act[None]:
        carrier = yield from self.agent(_left(limit))
        pause = FIRST
        what = f"a listener on {proto} port {port} in the guest"
        while not (yield Within(carrier.listening(port, proto), _left(limit), what)):
            if time.monotonic() > limit:
                raise TimedOut(what, timeout)
            yield Pause(pause)
            pause = min(2 * pause, MOST)

    def _text(self, pattern: str | re.Pattern[str], limit: float, timeout: float) -> Act[Any]:
        wanted = re.compile(pattern)
        while True:
            exact, other = yield from self.read_screen()
            match = _found(wanted, exact.text) or _found(wanted, other or "")
            if match is not None:
                return match
            if time.monotonic() > limit:
                what = f"{wanted.pattern!r} on the screen"
                raise TimedOut(what, timeout, _shown(exact, other))
            yield Pause(LOOK)


def _found(wanted: re.Pattern[str], text: str) -> re.Match[str] | None:
    """A match in `text`: a line may end with the blank that follows a prompt, or without."""
    return wanted.search(text) or wanted.search(text.replace("\n", " \n") + " ")


def _shown(exact: Reading, other: str | None) -> str:
    """What to say of a screen on which something is missing."""
    shown = f"it shows {' '.join((other or exact.text).split())!r}"
    if exact.certain or other is not None:
        return shown
    return f"{shown} and more, which tesseract may read: install the package tesseract-ocr"


def _left(limit: float) -> float:
    return max(0.0, limit - time.monotonic())
