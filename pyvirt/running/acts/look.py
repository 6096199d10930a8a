"""Acts that look at a VM from outside, and its keyboard and pointer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyvirt.flows import keys, look
from pyvirt.flows.steps import Act
from pyvirt.qmp.check import conform
from pyvirt.qmp.flow import Command
from pyvirt.running import ocr
from pyvirt.running.acts.base import Base, needing
from pyvirt.running.host.usage import Usage
from pyvirt.running.screen import Screenshot
from pyvirt.running.waiting.waits import aside
from pyvirt.screen.picture import picture
from pyvirt.screen.text import Reading, read


class Look(Base):
    """Screen, keys, pointer and figures."""

    def screenshot(self, device: str | None = None, head: int = 0) -> Act[Screenshot]:
        """The screen as a PNG (``screendump``), of `device` where there are several."""
        return Screenshot((yield from self._dump(device, head, png=True)))

    def screen_text(self, device: str | None = None, head: int = 0) -> Act[str]:
        """The text on the screen, line by line.

        The letters of firmware, boot loaders and text modes are read exactly. Other screens
        are read as well as tesseract can; `UnsupportedError` where it is not installed.
        """
        exact, other = yield from self.read_screen(device, head)
        if exact.certain:
            return exact.text
        if other is None:
            ocr.find()
        return other or ""

    def read_screen(
        self, device: str | None = None, head: int = 0
    ) -> Act[tuple[Reading, str | None]]:
        """The letters on the screen, and where they are not all what tesseract reads there."""
        dump = yield from self._dump(device, head, png=False)
        exact: Reading = yield aside(lambda: read(picture(dump)))
        if exact.certain or not ocr.installed():
            return exact, None
        shot = yield from self.screenshot(device, head)
        return exact, (yield aside(lambda: ocr.read(shot)))

    def _dump(self, device: str | None, head: int, *, png: bool) -> Act[bytes]:
        path = self.engine.directory / f"screen{self.engine.number()}"
        try:
            dump = look.screenshot(str(path), device, head, png=png)
            yield from needing(dump, "a screen", "describe a card: video=StdVga()")
            return path.read_bytes()
        finally:
            path.unlink(missing_ok=True)

    def send_keys(self, *chords: str, hold: float = 0.05) -> Act[None]:
        """Press keys: ``send_keys("ctrl-alt-delete", "ret")``; names are QEMU's QKeyCodes.

        Each chord is held for `hold` seconds.
        """
        pressed = [keys.chord(chord) for chord in chords]
        for names in pressed:
            conform(self.engine.capabilities.schema, "send-key", {"keys": keys.codes(names)})
        yield from keys.send_keys(pressed, hold)

    def type_text(self, text: str, *, hold: float = 0.02) -> Act[None]:
        """Type `text` on a US keyboard; a newline is the return key."""
        yield from keys.send_keys(list(keys.typed(text)), hold)

    def point(self, x: float, y: float) -> Act[None]:
        """Move an absolute pointer (a tablet) to fractions 0.0 to 1.0 of the screen."""
        yield from needing(look.point(x, y), "a pointer", "describe it: devices=[UsbTablet()]")

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
