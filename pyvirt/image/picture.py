"""A map of an image as a picture: what of the disk is stored, where in the file, how scattered.

Three drawings over each other: the disk from its first byte to its last, the file the same
way (coloured by the place in the disk that is stored there), and both against each other:
what was written in one go is a line, what is scattered is a cloud. Pure SVG, no scripts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from attrs import frozen

from pyvirt.errors import UnsupportedError
from pyvirt.html import visible
from pyvirt.image.extents import Extents, Flag

#: Columns of the two bands, and columns and rows of the drawing below them.
BINS = 450
GRID = 150, 60

_LEFT, _WIDTH, _BAND = 30, 900, 34
_PLOT_TOP, _PLOT_HEIGHT = 236, 240

#: What is drawn, from the bottom of a column up, and how.
KINDS = {
    "stored": "#2b6cb0",
    "compressed": "#805ad5",
    "backing 1": "#2f855a",
    "backing 2": "#68b38a",
    "deeper": "#b7dfc8",
    "zeros": "#e2c275",
    "nothing": "#eceff3",
}
_METADATA = "#c3cad5"


@frozen
class Shares:
    """Bytes of each kind in each of `BINS` equal parts of the disk."""

    size: int
    kinds: Mapping[str, Sequence[int]]

    def total(self, kind: str) -> int:
        return sum(self.kinds[kind])


@frozen
class Places:
    """Where parts of the disk lie in the file: the middle of what lies in each bin, and cells."""

    guest: Sequence[float | None]
    cells: frozenset[tuple[int, int]]
    #: Runs that go on in the file as they do in the disk, and the bytes of packed blocks there.
    fragments: int
    packed: int


def draw(name: str, format: str, size: int, file_size: int, extents: Extents) -> str:
    """The picture of a disk of `size` bytes in a file of `file_size`, as SVG."""
    shares = shared(extents, size)
    placed = places(extents, size, file_size)
    legend, lines = _legend(shares, _PLOT_TOP + _PLOT_HEIGHT + 54)
    height = _PLOT_TOP + _PLOT_HEIGHT + 48 + 22 * lines
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {height}" width="960" '
        f'height="{height}" role="img" font-family="sans-serif" font-size="13">',
        f"<title>Map of {visible(name)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(_LEFT, 26, name if len(name) < 90 else f"…{name[-88:]}",
              "font-size='16' font-weight='bold'"),
        _text(_LEFT, 46, f"{format}: a disk of {said(size)} in a file of {said(file_size)}; "
              f"{_amount(shares, placed)}"),
        *_band(shares),
        *_file(placed, file_size),
        *_plot(placed, size, file_size),
        *legend,
        "</svg>",
    ]  # fmt: skip
    return "\n".join(parts)


def png(svg: str, scale: float = 1) -> bytes:
    """A picture as PNG, drawn by the package cairosvg."""
    try:
        cairosvg: Any = import_module("cairosvg")
    except (ImportError, OSError) as error:  # OSError: without the library cairo.
        hint = "install the Python package cairosvg and Debian's libcairo2"
        raise UnsupportedError("PNG", "this Python", hint) from error
    drawn: bytes = cairosvg.svg2png(bytestring=svg.encode(), scale=scale)
    return drawn


def shared(extents: Extents, size: int) -> Shares:
    """How much of each part of the disk is what."""
    kinds = {kind: [0] * BINS for kind in KINDS}
    columns = zip(extents.start, extents.length, extents.flags, extents.depth, strict=True)
    for start, length, flags, depth in columns:
        row = kinds[_kind(flags, depth)]
        for bin, part in _spread(start, length, size):
            row[bin] += part
    return Shares(size, kinds)


def places(extents: Extents, size: int, file_size: int) -> Places:
    """Where in the image's own file the parts of the disk lie."""
    weight, sums = [0] * BINS, [0.0] * BINS
    cells: set[tuple[int, int]] = set()
    fragments, packed, expected = 0, 0, -1
    across, down = GRID
    for start, length, host, slack in _stored(extents):
        follows = expected - slack <= host <= expected
        fragments += not follows
        packed += length - (expected - host if follows else 0) if slack else 0
        expected = host + length
        for bin, part in _spread(host, length, file_size):
            weight[bin] += part
            middle = start + length / 2
            if part != length:  # The part of a long extent that lies in this bin.
                middle = start + min(length, max(0, (bin + 0.5) / BINS * file_size - host))
            sums[bin] += part * middle / max(1, size)
        steps = max(-(-length * across // max(1, size)), -(-length * down // max(1, file_size)))
        steps = max(1, min(across + down, steps))
        for step in range(steps):
            place = length * (2 * step + 1) // (2 * steps)
            cells.add((_cell(start + place, size, across), _cell(host + place, file_size, down)))
    guest = [total / bytes_ if bytes_ else None for total, bytes_ in zip(sums, weight, strict=True)]
    return Places(guest, frozenset(cells), fragments, packed)


def said(size: int) -> str:
    """Bytes as people say them."""
    number, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.0f} {unit}" if unit == "bytes" or number >= 10 else f"{number:.1f} {unit}"


def _amount(shares: Shares, placed: Places) -> str:
    """What is in the image's own file, in words."""
    plain, packed = shares.total("stored"), shares.total("compressed")
    words = [f"{said(plain)} stored"] * bool(plain or not packed)
    words += [f"{said(packed)} compressed to {said(placed.packed)}"] * bool(packed)
    ending = "" if placed.fragments == 1 else "s"
    return f"{', '.join(words)} in {placed.fragments} fragment{ending}"


def _kind(flags: int, depth: int) -> str:
    if not flags & (Flag.ALLOCATED | Flag.COMPRESSED):
        return "zeros" if flags & Flag.PRESENT else "nothing"
    if flags & Flag.ZERO:
        return "zeros"
    if depth:
        return f"backing {depth}" if depth < 3 else "deeper"
    return "compressed" if flags & Flag.COMPRESSED else "stored"


def _stored(extents: Extents) -> Iterator[tuple[int, int, int, int]]:
    """Guest place, length in the file and host place of what lies in the image's own file, and
    by how much its length may be too large: of packed blocks only whole sectors are known."""
    columns = zip(*extents.views(), strict=True)
    for start, length, host, stored, depth, file, flags in columns:
        if depth or file:
            continue
        if flags & Flag.COMPRESSED:
            yield start, stored, host, 511
        elif flags & Flag.OFFSET and flags & Flag.ALLOCATED:
            yield start, length, host, 0


def _spread(start: int, length: int, size: int) -> Iterator[tuple[int, int]]:
    """The bins of `size` that a piece reaches, and how many of its bytes are in each."""
    if size <= 0:
        return
    end = min(start + length, size)
    while start < end:
        bin = min(BINS - 1, start * BINS // size)
        border = end if bin == BINS - 1 else min(end, -(-(bin + 1) * size // BINS))
        border = max(border, start + 1)
        yield bin, border - start
        start = border


def _cell(place: int, size: int, count: int) -> int:
    return min(count - 1, place * count // max(1, size))


# -- Drawing ---------------------------------------------------------------------------------


def _band(shares: Shares) -> Iterator[str]:
    """The disk: each column filled by the shares of its kinds, equal neighbours as one."""
    top, step = 80, _WIDTH / BINS
    yield _text(_LEFT, top - 8, "The disk, from its first byte to its last", "fill='#4a5568'")
    columns = [_heights(shares, bin) for bin in range(BINS)]
    for first, last in _runs(columns):
        above = top + _BAND
        for kind, height in columns[first]:
            above -= height
            yield _rect(_LEFT + first * step, above, (last - first) * step, height, KINDS[kind])
    yield from _frame(top, shares.size)


def _heights(shares: Shares, bin: int) -> tuple[tuple[str, int], ...]:
    """Pixels of each kind in a column; whatever is there at all gets one."""
    here = {kind: row[bin] for kind, row in shares.kinds.items() if row[bin]}
    total = sum(here.values())
    if not total:
        return ()
    heights = {kind: max(1, round(_BAND * part / total)) for kind, part in here.items()}
    largest = max(heights, key=lambda kind: heights[kind])
    heights[largest] += _BAND - sum(heights.values())
    return tuple(heights.items())


def _file(placed: Places, file_size: int) -> Iterator[str]:
    """The file: coloured by where in the disk lies what is stored there."""
    top, step = 158, _WIDTH / BINS
    ramp = _LEFT + _WIDTH - 330
    yield _text(_LEFT, top - 8, "The file, from its first byte to its last", "fill='#4a5568'")
    yield _text(ramp - 8, top - 8, "start of the disk", "fill='#4a5568' text-anchor='end'")
    yield from _ramp(ramp, top - 18)
    yield _text(ramp + 108, top - 8, "its end; grey: none of it", "fill='#4a5568'")
    colours = [_METADATA if middle is None else _colour(middle) for middle in placed.guest]
    if file_size:
        for first, last in _runs(colours):
            left, width = _LEFT + first * step, (last - first) * step
            yield _rect(left, top, width, _BAND, colours[first])
    yield from _frame(top, file_size)


def _plot(placed: Places, size: int, file_size: int) -> Iterator[str]:
    """Place in the disk against place in the file."""
    across, down = _WIDTH / GRID[0], _PLOT_HEIGHT / GRID[1]
    label = "What of the disk (to the right) lies where in the file (downwards)"
    yield _text(_LEFT, _PLOT_TOP - 8, label, "fill='#4a5568'")
    yield _rect(_LEFT, _PLOT_TOP, _WIDTH, _PLOT_HEIGHT, "#f7f8fa")
    path = "".join(
        f"M{_LEFT + x * across:.0f} {_PLOT_TOP + y * down:.0f}h{across:.0f}v{down:.0f}"
        f"h-{across:.0f}z"
        for x, y in sorted(placed.cells)
    )
    yield f'<path d="{path}" fill="{KINDS["stored"]}"/>'
    yield from _frame(_PLOT_TOP, size, _PLOT_HEIGHT)
    for part, anchor in (0.0, "end"), (0.5, "middle"), (1.0, "start"):
        here = f"translate({_LEFT - 6} {_PLOT_TOP + part * _PLOT_HEIGHT:g}) rotate(-90)"
        words = said(int(part * file_size)) if part else "0"
        yield (
            f'<text transform="{here}" font-size="11" fill="#718096" '
            f'text-anchor="{anchor}">{words}</text>'
        )


def _legend(shares: Shares, y: int) -> tuple[list[str], int]:
    """What the colours mean, and how many lines that takes."""
    parts, left, lines = [], _LEFT, 1
    for kind, colour in KINDS.items():
        total = shares.total(kind)
        if not total:
            continue
        words = f"{kind}: {said(total)}"
        wide = 34 + round(7.2 * len(words))
        if left + wide > _LEFT + _WIDTH:
            left, y, lines = _LEFT, y + 22, lines + 1
        parts.append(
            f'<rect x="{left}" y="{y - 11}" width="12" height="12" fill="{colour}" '
            'stroke="#718096" stroke-width="0.5"/>'
        )
        parts.append(_text(left + 17, y, words))
        left += wide
    return parts, lines


def _frame(top: float, size: int, height: float = _BAND) -> Iterator[str]:
    """The border of a drawing, and what its ends and its middle are."""
    yield (
        f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{height}" fill="none" '
        'stroke="#718096"/>'
    )
    style = "font-size='11' fill='#718096'"
    below = top + height + 14
    yield _text(_LEFT, below, "0", style)
    yield _text(_LEFT + _WIDTH / 2, below, said(size // 2), f"{style} text-anchor='middle'")
    yield _text(_LEFT + _WIDTH, below, said(size), f"{style} text-anchor='end'")


def _ramp(left: float, top: float) -> Iterator[str]:
    for step in range(20):
        yield _rect(left + 5 * step, top, 5, 12, _colour(step / 19))


def _colour(part: float) -> str:
    """From blue over green to yellow, each lighter than the one before, for every eye."""
    stops = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
    place = max(0.0, min(1.0, part)) * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    share = round((place - first) * 8) / 8  # Few colours make long runs, and a small file.
    mixed = (a + (b - a) * share for a, b in zip(stops[first], stops[first + 1], strict=True))
    return "#" + "".join(f"{round(value):02x}" for value in mixed)


def _runs(values: Sequence[object]) -> Iterator[tuple[int, int]]:
    """First and end of each run of equal values."""
    first = 0
    for place in range(1, len(values) + 1):
        if place == len(values) or values[place] != values[first]:
            yield first, place
            first = place


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"/>'


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {style}>{visible(words)}</text>'


