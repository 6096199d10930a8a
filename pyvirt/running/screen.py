"""A picture of a VM's screen."""

from __future__ import annotations

import struct
from pathlib import Path

from attrs import frozen

from pyvirt.errors import ProtocolError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@frozen(repr=False)
class Screenshot:
    """The PNG bytes of a screen; a notebook shows it as a picture."""

    png: bytes

    def __attrs_post_init__(self) -> None:
        if not self.png.startswith(_SIGNATURE) or len(self.png) < 24:
            raise ProtocolError("the screendump of QEMU", "is not a PNG", 0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels (PNG specification, section 11.2.2)."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    def save(self, path: str | Path) -> Path:
        """Write the PNG to `path`."""
        Path(path).write_bytes(self.png)
        return Path(path)

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        width, height = self.size
        return f"<Screenshot {width}x{height}, {len(self.png)} bytes>"
