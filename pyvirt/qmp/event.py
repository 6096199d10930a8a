"""What QEMU says unasked."""

from __future__ import annotations

from typing import Any

import msgspec


class Timestamp(msgspec.Struct, frozen=True):
    """QEMU's wall clock when an event happened; both fields are -1 where it could not tell."""

    seconds: int = 0
    microseconds: int = 0


class Event(msgspec.Struct, frozen=True):
    """One event: its name in QEMU's words, its data, and when it happened."""

    name: str = msgspec.field(name="event")
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    timestamp: Timestamp = Timestamp()

    @property
    def time(self) -> float:
        """When it happened, in seconds since 1970 on the host's clock."""
        return self.timestamp.seconds + self.timestamp.microseconds / 1e6
