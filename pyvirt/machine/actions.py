"""What QEMU does when the guest ends by itself (``-action``)."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import field

from pyvirt.fields import choice, frozen, optional
from pyvirt.qemu.option import Option


@frozen(kw_only=True)
class Actions:
    """QEMU's answers to a guest that resets, powers off or panics; None is QEMU's own.

    `reboot`: "reset" starts it again, "shutdown" ends QEMU ("guest-reset"). `shutdown`:
    "poweroff" ends QEMU, "pause" keeps it for a look. `panic`, of a guest with a `Pvpanic`
    device: "none", "pause", "shutdown" or "exit-failure". What a watchdog does is said by the
    `Watchdog`.
    """

    reboot: str | None = field(default=None, validator=optional(choice("reset", "shutdown")))
    shutdown: str | None = field(default=None, validator=optional(choice("poweroff", "pause")))
    panic: str | None = field(
        default=None, validator=optional(choice("none", "pause", "shutdown", "exit-failure"))
    )

    def options(self) -> Iterator[Option]:
        """``-action``, one for each answer."""
        for name in ("reboot", "shutdown", "panic"):
            if getattr(self, name) is not None:
                yield Option("action", {name: getattr(self, name)}, source=name)
