"""Ending a VM: politely, then firmly."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from pyvirt.errors import ClosedError, CommandError, PyvirtError, TimedOut
from pyvirt.flows.steps import Act, Ended, Kill, Within
from pyvirt.qmp.flow import Command

#: Seconds that QEMU gets to end itself after ``quit``: it flushes its images first.
QUITTING = 10.0


def shutdown(asking: Future[None] | Command, patience: float, *, firm: bool) -> Act[Any]:
    """Ask the guest to power off, wait `patience` seconds, then end QEMU if `firm`.

    A guest that does not even take the wish gets that time as well, but not twice.
    """
    try:
        if isinstance(asking, Future):
            yield Within(asking, patience, "asking the guest to power off")
        else:
            yield asking
    except (ClosedError, TimedOut, CommandError) as error:
        refusal: PyvirtError | None = error
        patience = 0.0 if isinstance(error, TimedOut) or not firm else patience
    else:
        refusal = None
    try:
        return (yield Ended(patience))
    except TimedOut as late:
        if not firm:
            raise refusal or late from None
    return (yield from stop())


def stop() -> Act[Any]:
    """End QEMU now: ``quit``, which flushes images, then SIGKILL."""
    try:
        yield Command("quit")
        return (yield Ended(QUITTING))
    except (ClosedError, TimedOut, CommandError):
        yield Kill()
        return (yield Ended(QUITTING))
