"""Letters on a picture of a screen are read exactly, and pictures are not read as letters."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import ProtocolError
from pyvirt.screen.font import CHARACTERS, GLYPHS, HEIGHT
from pyvirt.screen.picture import Picture, picture
from pyvirt.screen.text import read

BIOS = Path("/usr/share/seabios/vgabios-stdvga.bin")
GREY, BLACK, WHITE, BLUE = b"\xaa\xaa\xaa", bytes(3), b"\xff\xff\xff", b"\0\0\xaa"
ROWS = {letter: rows for rows, letter in GLYPHS.items()}

#: A letter that fills its cell looks like a blank one in other colours.
SEEN = sorted(set(CHARACTERS) - {"█", "\xa0"})

#: Letters that are each other's negative: a picture does not tell ink from paper.
TWINS = str.maketrans("▄▌◙◘", "▀▐○•")


def screen(
    lines: list[str], *, step: int = 9, ink: bytes = GREY, paper: bytes = BLACK, border: int = 0
) -> Picture:
    """What a video card shows of `lines`, in cells of `step` pixels."""
    columns = max(len(line) for line in lines)
    width = columns * step + 2 * border
    rows = [paper * width] * border
    for line in lines:
        for y in range(HEIGHT):
            letters = line.ljust(columns)
            dots = "".join(f"{ROWS[letter][y]:08b}".ljust(step, "0") for letter in letters)
            row = b"".join(ink if dot == "1" else paper for dot in dots)
            rows.append(paper * border + row + paper * border)
    rows += [paper * width] * border
    return Picture(width, len(rows), b"".join(rows))


def text_mode(lines: list[str], **how: bytes) -> Picture:
    """A text mode of 80 by 25 letters."""
    return screen([line.ljust(80) for line in (*lines, *[""] * (25 - len(lines)))], **how)


def test_the_font_is_that_of_the_video_bios() -> None:
    if not BIOS.exists():
        pytest.skip("SeaBIOS is not installed")
    data = b"".join(ROWS[letter.replace("\xa0", " ")] for letter in CHARACTERS)
    assert data in BIOS.read_bytes()


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.text(st.sampled_from(SEEN), max_size=80), min_size=1, max_size=25),
    st.sampled_from([(GREY, BLACK), (BLACK, GREY), (WHITE, BLUE), (BLUE, WHITE)]),
)
def test_every_text_mode_is_read_exactly(lines: list[str], colours: tuple[bytes, bytes]) -> None:
    ink, paper = colours
    reading = read(text_mode(lines, ink=ink, paper=paper))
    wanted = "\n".join(line.rstrip() for line in lines).rstrip("\n")
    assert reading.text.translate(TWINS) == wanted.translate(TWINS)
    assert reading.unknown == 0
    assert reading.certain


def test_letters_of_a_graphics_mode_are_eight_wide() -> None:
    lines = ["login: root", "Password:", "~ $ uname -r"]
    assert read(screen(lines, step=8)).text.splitlines() == lines


def test_a_menu_with_a_border_is_read() -> None:
    reading = read(screen(["Install", "Advanced options  >"], step=8, border=8))
    assert reading.text.split("\n") == [" Install", " Advanced options  >"]


@pytest.mark.parametrize("rows", [(13, 14), (14, 15), (13, 14, 15)])
def test_a_cursor_hides_no_letter(rows: tuple[int, ...]) -> None:
    shown = text_mode(["prompt> x"])
    pixels = bytearray(shown.pixels)
    for column in (8, 9):
        for row in rows:
            at = (row * shown.width + column * 9) * 3
            pixels[at : at + 8 * 3] = GREY * 8
    assert read(Picture(shown.width, shown.height, bytes(pixels))).text == "prompt> x"


def test_letters_before_a_picture_are_read() -> None:
    """A menu over a photograph, every letter with its shadow."""
    chance = random.Random(4)
    plain = screen(["Boot the installer".ljust(40)] * 4, step=8, ink=WHITE, paper=BLACK)
    pixels = bytearray(plain.pixels)
    for at in range(0, len(pixels), 3):
        if pixels[at : at + 3] == BLACK:
            pixels[at : at + 3] = bytes(chance.choice((40, 60)) for _ in range(3))
    reading = read(Picture(plain.width, plain.height, bytes(pixels)))
    assert reading.text.splitlines() == ["Boot the installer"] * 4


def test_noise_is_no_text() -> None:
    noise = random.Random(7).randbytes(640 * 480 * 3)
    reading = read(Picture(640, 480, noise))
    assert (reading.text, reading.known, reading.certain) == ("", 0, False)


def test_a_smooth_background_is_blank() -> None:
    rows = b"".join(bytes((y // 8, y // 4, 90)) * 640 for y in range(480))
    reading = read(Picture(640, 480, rows))
    assert (reading.text, reading.unknown, reading.certain) == ("", 0, True)


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (7, 15), (9, 17), (720, 16), (8, 400)])
def test_screens_of_any_size_are_looked_at(size: tuple[int, int]) -> None:
    width, height = size
    assert read(Picture(width, height, bytes(width * height * 3))).text == ""


def test_a_dump_is_whole_or_refused() -> None:
    dump = b"P6\n2 2\n255\n" + bytes(range(12))
    shown = picture(dump)
    assert (shown.width, shown.height, shown.row(1)) == (2, 2, bytes(range(6, 12)))
    for size in range(len(dump)):
        with pytest.raises(ProtocolError) as caught:
            picture(dump[:size])
        assert str(caught.value).startswith("the screendump of QEMU ")
    with pytest.raises(ProtocolError):
        picture(dump + b"\0")


@given(st.binary(max_size=40))
def test_any_dump_is_a_picture_or_refused(dump: bytes) -> None:
    try:
        picture(b"P6 " + dump)
    except ProtocolError:
        return
