"""What ``qemu-img`` says: how far it is, and why it failed."""

from __future__ import annotations

import re

_PERCENT = re.compile(rb"\((\d+\.\d+)/100%\)")
_LOCK = re.compile(r'Failed to (?:get|lock) (?:shared )?(?:"([a-z ]+)" lock|byte \d+)')

_HELD = re.compile(r"Is another process using the image \[(.*)\]\?")


def fraction(printed: bytes | bytearray) -> float | None:
    """The last ``(12.34/100%)`` in what ``-p`` printed, from 0 to 1; None when there is none."""
    found = _PERCENT.findall(printed)
    return min(1.0, float(found[-1]) / 100) if found else None


def held(words: str) -> str | None:
    """The image that another process holds, if that is why it failed; "" when it does not say."""
    if _LOCK.search(words) is None:
        return None
    named = _HELD.search(words)
    return named[1] if named else ""


def transient(words: str) -> bool:
    """Whether the same command may succeed when it is given again.

    To choose the work of a LUKS passphrase, QEMU measures its own CPU time, and gives up where
    the kernel's clock has not ticked meanwhile.
    """
    return "Unable to get accurate CPU usage" in words
