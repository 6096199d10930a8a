"""Acts that look at a VM from outside, and its keyboard and pointer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyvirt.flows import keys, look
from pyvirt.flows.steps import Act
from pyvirt.qmp.flow import Command
from pyvirt.running.acts.base import Base
from pyvirt.running.screen import Screenshot
from pyvirt.running.usage import Usage


class Look(Base):
    """Screen, keys, pointer and figures."""

    def screenshot(self, device: str | None = None, head: int = 0) -> Act[Screenshot]:
        """The screen as a PNG (``screendump``), of `device` where there are several."""
        path = self.engine.directory / f"screen{self.engine.number()}.png"
        try:
            yield from look.screenshot(str(path), device, head)
            return Screenshot(path.read_bytes())
        finally:
            path.unlink(missing_ok=True)

    def send_keys(self, *chords: str, hold: float = 0.05) -> Act[None]:
        """Press keys: ``send_keys("ctrl-alt-delete", "ret")``; names are QEMU's QKeyCodes.

        Each chord is held for `hold` seconds.
        """
        yield from keys.send_keys([keys.chord(chord) for chord in chords], hold)

    def type_text(self, text: str, *, hold: float = 0.02) -> Act[None]:
        """Type `text` on a US keyboard; a newline is the return key."""
        yield from keys.send_keys(list(keys.typed(text)), hold)

    def point(self, x: float, y: float) -> Act[None]:
        """Move an absolute pointer (a tablet) to fractions 0.0 to 1.0 of the screen."""
        yield from look.point(x, y)

    def click(self, button: str = "left") -> Act[None]:
        """Press and release a pointer button."""
        yield from look.click(button)

    def block_statistics(self) -> Act[Mapping[str, Mapping[str, Any]]]:
        """Bytes, operations and nanoseconds of each disk, by its name."""
        return (yield from look.block_statistics())

    def usage(self) -> Act[Usage]:
        """CPU seconds and memory bytes of QEMU's process, of this moment."""
        yield from ()  # An act like the others, though it need not wait.
        assert self.engine.process is not None
        return self.engine.process.usage()

    def info(self) -> Act[Mapping[str, Any]]:
        """State, vCPUs, block devices and network cards as QEMU reports them."""
        return {
            "status": (yield Command("query-status")),
            "cpus": (yield Command("query-cpus-fast")),
            "block": (yield Command("query-block")),
            "rx-filter": (yield Command("query-rx-filter")),
        }
