"""Signals by name."""

from __future__ import annotations

import re
import signal

from pyvirt.errors import SpecError

_REAL = re.compile(r"SIGRT(MIN|MAX)(?:([+-])(\d+))?")


def number(name: str) -> int:
    """The number of "SIGTERM", "TERM", "15" or "SIGRTMIN+3"."""
    if name.isdigit() and 0 < int(name) <= signal.SIGRTMAX:
        return int(name)
    word = name if name.startswith("SIG") else f"SIG{name}"
    real = _REAL.fullmatch(word)
    if real is not None:
        base = signal.SIGRTMIN if real[1] == "MIN" else signal.SIGRTMAX
        return int(base) + int(f"{real[2] or '+'}{real[3] or 0}")
    try:
        return int(signal.Signals[word])
    except KeyError:
        raise SpecError("signal", "must be a signal such as 'SIGTERM'", name) from None
