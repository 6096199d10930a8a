"""Everything pyvirt raises: the type says who is at fault, attributes hold the facts.

``OSError`` of the host passes through untouched, and every time limit is also a
built-in ``TimeoutError``.
"""

from __future__ import annotations

from typing import Any


class PyvirtError(Exception):
    """The base of all errors that pyvirt raises itself."""


class SpecError(PyvirtError, ValueError):
    """A description is wrong: `field` holds `value`, which does not fit `reason`."""

    def __init__(self, field: str, reason: str, value: Any) -> None:
        super().__init__(f"{field} {reason}, got {value!r}")
        self.field, self.reason, self.value = field, reason, value


class UnsupportedError(PyvirtError):
    """This QEMU, or this host, lacks what a description needs."""

    def __init__(self, what: str, where: str, hint: str = "") -> None:
        super().__init__(f"{what} is not available in {where}" + (f"; {hint}" if hint else ""))
        self.what, self.where, self.hint = what, where, hint


class ProtocolError(PyvirtError):
    """A peer broke its protocol at byte `offset` of its stream."""

    def __init__(self, peer: str, reason: str, offset: int) -> None:
        super().__init__(f"{peer} {reason} at byte {offset}")
        self.peer, self.reason, self.offset = peer, reason, offset


class ClosedError(PyvirtError, ConnectionError):
    """The other end is gone; `why` says what is known of its end."""

    def __init__(self, peer: str, why: str) -> None:
        super().__init__(f"{peer} is closed: {why}")
        self.peer, self.why = peer, why


class CommandError(PyvirtError):
    """QEMU refused a command."""

    def __init__(self, command: str, kind: str, desc: str) -> None:
        super().__init__(f"{command}: {desc} ({kind})")
        self.command, self.kind, self.desc = command, kind, desc


class TimedOut(PyvirtError, TimeoutError):
    """`what` took longer than `seconds`."""

    def __init__(self, what: str, seconds: float, detail: str = "") -> None:
        super().__init__(f"{what} took longer than {seconds:g} s" + (f": {detail}" if detail else ""))
        self.what, self.seconds, self.detail = what, seconds, detail
