"""Reads the text on a screen exactly, where it is in the letters of a PC.

Firmware, boot loaders and text modes place 8 by 16 pixel letters on a grid (a text mode adds
a ninth column to each), so every cell of the grid either is a known letter, pixel by pixel,
or it is not text. No guess is made, and nothing in the guest is disturbed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from attrs import frozen

from pyvirt.screen.font import GLYPHS, HEIGHT
from pyvirt.screen.picture import PIXEL, Picture

WIDTH = 8

#: Widths of text modes of 40, 80 and 132 letters, each nine pixels wide.
_NINE_WIDE = (360, 720, 1188)

#: Pixels around the text of a menu in graphics: SYSLINUX's, on whose grid lines begin.
_BORDER = 8

#: By so much the red, green or blue of a letter differs from what is behind it.
_CONTRAST = 48

#: Colours of a letter and the picture behind it, at most; more is a picture only.
_MANY = 64

#: A letter in front of a picture counts from so many pixels on: a speck may be by accident.
_SPECK = 5

# A text mode's cursor fills two or three of the last rows; the letter is known by the others.
_BELOW = 13
_CURSORS = {b"\xff\xff\0", b"\0\xff\xff", b"\xff\xff\xff"}
_ABOVE = {rows[:_BELOW]: letter for rows, letter in reversed(GLYPHS.items())}


@frozen
class Reading:
    """The `text` on a screen, and how many of its cells that are not blank were `known`."""

    text: str
    known: int
    unknown: int

    @property
    def certain(self) -> bool:
        """Whether this is all that the screen shows: nine cells in ten were letters."""
        return self.unknown * 9 <= self.known


def read(picture: Picture) -> Reading:
    """The text in `picture`, its lines without the blanks at their ends."""
    readings = [_read(picture, top, step) for top, step in _grids(picture)]
    return max(readings, key=lambda reading: reading.known)


def _grids(picture: Picture) -> Iterator[tuple[int, int]]:
    """Where the first line may begin, and how wide its cells may be, in pixels."""
    if picture.width in _NINE_WIDE:
        yield 0, WIDTH + 1
    yield 0, WIDTH
    yield _BORDER, WIDTH


def _read(picture: Picture, first: int, step: int) -> Reading:
    letters: dict[bytes, str | None] = {}
    lines = []
    known = unknown = 0
    for top in range(first, picture.height - HEIGHT + 1, HEIGHT):
        line = []
        for cell in _cells(picture, top, step):
            if cell not in letters:
                letters[cell] = _letter(cell)
            letter = letters[cell]
            known += letter not in (None, " ")
            unknown += letter is None
            line.append(letter or " ")
        lines.append("".join(line).rstrip())
    return Reading("\n".join(lines).rstrip("\n"), known, unknown)


def _cells(picture: Picture, top: int, step: int) -> Iterator[bytes]:
    """The pixels of each cell in the line of text that begins at row `top`."""
    rows = [picture.row(top + number) for number in range(HEIGHT)]
    for left in range(0, (picture.width - WIDTH + 1) * PIXEL, step * PIXEL):
        yield b"".join([row[left : left + WIDTH * PIXEL] for row in rows])


def _letter(cell: bytes) -> str | None:
    """The letter in `cell`: in whatever colour, on whatever is behind it."""
    if all(max(cell[hue::PIXEL]) - min(cell[hue::PIXEL]) < _CONTRAST for hue in range(PIXEL)):
        return " "
    pixels = [cell[at : at + PIXEL] for at in range(0, len(cell), PIXEL)]
    counted = Counter(pixels).most_common()
    if len(counted) > _MANY:
        return None
    # The rarer colour first: the letter, and not what is left of its background.
    for colour, count in reversed(counted):
        letter = _known(_mask(pixels, colour))
        if letter is not None and (len(counted) == 2 or count >= _SPECK):
            return letter
    return None


def _mask(pixels: list[bytes], colour: bytes) -> bytes:
    """The rows of a cell where `colour` is on and everything else is off."""
    bits = "".join("1" if pixel == colour else "0" for pixel in pixels)
    return int(bits, 2).to_bytes(HEIGHT, "big")


def _known(rows: bytes) -> str | None:
    letter = GLYPHS.get(rows)
    if letter is None and rows[_BELOW:] in _CURSORS:
        return _ABOVE.get(rows[:_BELOW])
    return letter
