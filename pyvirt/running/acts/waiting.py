"""Acts that wait until something is so in the guest."""

from __future__ import annotations

import re
import time
from typing import Any

from pyvirt.errors import SpecError, TimedOut
from pyvirt.flows.steps import Act
from pyvirt.guest.command import check_port
from pyvirt.qmp.flow import Pause
from pyvirt.running.acts.base import BOOT
from pyvirt.running.acts.listening import Listening, left
from pyvirt.running.acts.look import Look
from pyvirt.screen.text import Reading

#: Seconds between two looks at the screen: reading it takes a tenth of that.
LOOK = 0.3


class Waiting(Look, Listening):
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
            yield from self.agent(left(limit))
        if port is not None:
            yield from self._port(port, proto, limit, timeout)
        if text is not None:
            match = yield from self._text(text, limit, timeout)
        return match  # type: ignore[no-any-return]

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
