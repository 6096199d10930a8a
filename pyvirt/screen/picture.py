"""The picture that ``screendump`` writes: a binary PPM (netpbm's ppm(5))."""

from __future__ import annotations

import re

from attrs import frozen

from pyvirt.errors import ProtocolError

_SOURCE = "the screendump of QEMU"
_HEAD = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s")

#: Bytes of one pixel: red, green, blue.
PIXEL = 3


@frozen(repr=False)
class Picture:
    """A screen of `width` by `height` pixels, three bytes each, row after row."""

    width: int
    height: int
    pixels: bytes

    def row(self, number: int) -> bytes:
        """The pixels of one row."""
        stride = self.width * PIXEL
        return self.pixels[number * stride : (number + 1) * stride]

    def __repr__(self) -> str:
        return f"<Picture {self.width}x{self.height}>"


def picture(ppm: bytes) -> Picture:
    """The picture in `ppm`. Raises `ProtocolError` when it is no whole PPM."""
    head = _HEAD.match(ppm)
    if head is None:
        raise ProtocolError(_SOURCE, "is not a PPM", 0)
    width, height = int(head[1]), int(head[2])
    pixels = ppm[head.end() :]
    if len(pixels) != width * height * PIXEL:
        raise ProtocolError(_SOURCE, f"does not end with its {width} by {height} pixels", len(ppm))
    return Picture(width, height, pixels)
