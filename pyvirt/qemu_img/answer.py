"""What ``qemu-img`` says: how far it is, and why it failed."""

from __future__ import annotations

import re

_PERCENT = re.compile(rb"\((\d+\.\d+)/100%\)")
_LOCK = re.compile(r'Failed to (?:get|lock) (?:shared )?(?:"([a-z ]+)" lock|byte \d+)')


def fraction(printed: bytes | bytearray) -> float | None:
    """The last ``(12.34/100%)`` in what ``-p`` printed, from 0 to 1; None when there is none."""
    found = _PERCENT.findall(printed)
    return min(1.0, float(found[-1]) / 100) if found else None


def held(words: str) -> bool:
    """Whether it failed because another process holds an image."""
    return _LOCK.search(words) is not None


def transient(words: str) -> bool:
    """Whether the same command may succeed when it is given again.

    To choose the work of a LUKS passphrase, QEMU measures its own CPU time, and gives up where
    the kernel's clock has not ticked meanwhile.
    """
    return "Unable to get accurate CPU usage" in words
