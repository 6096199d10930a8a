"""Making LUKS with QEMU's tools on a busy machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

TRIES = 40
# QEMU times its key derivation by its own CPU clock, and gives up where that did not tick.
SPURIOUS = b"Unable to get accurate CPU usage"


def try_again(words: Sequence[object], *, timeout: float = 120) -> bytes:
    """What a command prints, which is given again as long as it fails only for its timing."""
    for _ in range(TRIES):
        done = subprocess.run([str(word) for word in words], capture_output=True, timeout=timeout)
        if done.returncode == 0 or SPURIOUS not in done.stderr:
            break
        time.sleep(0.1)
    if done.returncode:
        raise AssertionError(f"{words}: {done.stderr.decode(errors='replace')}")
    return done.stdout
