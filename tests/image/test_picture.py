"""The map of an image as a picture: what it shows, and that it is harmless."""

from __future__ import annotations

import struct
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from writes import MIB, image, io

from pyvirt.errors import UnsupportedError
from pyvirt.image import Extent, Extents, Flag, Image
from pyvirt.image.picture import BINS, KINDS, draw, places, said, shared

DATA = Flag.ALLOCATED | Flag.PRESENT | Flag.OFFSET


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return ["".join(one.itertext()) for one in parsed(svg).iter() if one.tag.endswith("text")]


def test_every_byte_of_the_disk_is_in_one_kind() -> None:
    extents = Extents.of(
        [
            Extent(0, 3 * MIB, 100, DATA),
            Extent(3 * MIB, MIB, 0, Flag.ZERO | Flag.PRESENT),
            Extent(4 * MIB, MIB, 0, Flag(0)),
            Extent(5 * MIB, MIB, 9, Flag.COMPRESSED | Flag.ALLOCATED | Flag.PRESENT, stored=77),
            Extent(6 * MIB, MIB, 9, DATA, depth=1),
            Extent(7 * MIB, MIB, 9, DATA, depth=5),
        ]
    )
    shares = shared(extents, 8 * MIB)
    assert {kind: shares.total(kind) // MIB for kind in KINDS} == {
        "stored": 3, "zeros": 1, "nothing": 1, "compressed": 1, "backing 1": 1, "backing 2": 0,
        "deeper": 1,
    }  # fmt: skip


@given(some.lists(some.tuples(some.integers(1, 10**12), some.sampled_from([DATA, Flag(0)])),
                  max_size=30))  # fmt: skip
def test_no_byte_is_lost_or_counted_twice(pieces: list[tuple[int, Flag]]) -> None:
    at, made = 0, []
    for length, flags in pieces:
        made.append(Extent(at, length, at if flags else 0, flags))
        at += length
    shares = shared(Extents.of(made), at)
    assert sum(map(shares.total, KINDS)) == at
    column = [sum(row[bin] for row in shares.kinds.values()) for bin in range(BINS)]
    assert max(column) <= at // BINS + 2
    parsed(draw("x", "raw", at, at, Extents.of(made)))


def test_fragments_are_counted_and_placed() -> None:
    ordered = Extents.of([Extent(0, MIB, 0, DATA), Extent(MIB, MIB, MIB, DATA)])
    turned = Extents.of([Extent(0, MIB, MIB, DATA), Extent(MIB, MIB, 0, DATA)])
    assert places(ordered, 2 * MIB, 2 * MIB).fragments == 1
    found = places(turned, 2 * MIB, 2 * MIB)
    assert found.fragments == 2
    assert found.guest[0] == pytest.approx(0.5, abs=0.01)
    assert found.guest[-1] == pytest.approx(0.5, abs=0.01)
    assert (0, 0) not in found.cells
    assert (0, 30) in found.cells


PACKED = Flag.ALLOCATED | Flag.PRESENT | Flag.COMPRESSED


def test_packed_blocks_go_on_where_the_last_sector_is_shared() -> None:
    """Of their sizes only whole sectors are known, so each may reach into the next."""
    sizes = [1000, 77, 3000, 512]
    extents, host = [], 5 * 512
    for number, size in enumerate(sizes):
        most = -(-(host % 512 + size) // 512) * 512 - host % 512
        extents.append(Extent(number * MIB, MIB, host, PACKED, stored=most))
        host += size
    found = places(Extents.of(extents), 4 * MIB, 32768)
    assert found.fragments == 1
    assert sum(sizes) <= found.packed < sum(sizes) + 512
    svg = draw("x", "qcow2", 4 * MIB, 32768, Extents.of(extents))
    line = f"; 4.0 MiB compressed to {said(found.packed)} in 1 fragment"
    assert any(words.endswith(line) for words in texts(svg))


def test_the_legend_is_broken_into_lines() -> None:
    kinds = [(DATA, 0), (PACKED, 0), (DATA, 1), (DATA, 2), (DATA, 3), (Flag.ZERO, 0), (Flag(0), 0)]
    extents = [Extent(n * MIB, MIB, 0, flags, depth) for n, (flags, depth) in enumerate(kinds)]
    svg = parsed(draw("x" * 100, "qcow2", 7 * MIB, 7 * MIB, Extents.of(extents)))
    words = [one for one in svg.iter() if one.tag.endswith("text") and ": " in (one.text or "")][2:]
    assert len({one.get("y") for one in words}) == 2
    assert max(float(one.get("x", 0)) for one in words) < 900
    assert float(svg.get("height", 0)) > max(float(one.get("y", 0)) for one in words)


def test_a_picture_is_png_too(tmp_path: Path) -> None:
    pytest.importorskip("cairosvg")
    with Image(image(tmp_path / "a.qcow2")) as opened:
        for scale in 1, 2:
            data = opened.map_png(scale=scale)
            assert data[:8] == b"\x89PNG\r\n\x1a\n"
            assert struct.unpack(">I", data[16:20]) == (960 * scale,)


def test_without_cairosvg_there_is_no_png(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    with Image(image(tmp_path / "a.qcow2")) as opened, pytest.raises(UnsupportedError) as caught:
        opened.map_png()
    assert str(caught.value) == (
        "PNG is not available in this Python; "
        "install the Python package cairosvg and Debian's libcairo2"
    )


def test_an_image_is_drawn(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2")
    io(path, "write -z 8M 8M", "write -c 32M 64k")
    with Image(path) as opened:
        svg = opened.map_svg()
        assert svg in opened._repr_html_()
    assert "qcow2: a disk of 64 MiB" in " ".join(texts(svg))
    legend = texts(svg)[-4:]
    assert legend == ["stored: 4.0 MiB", "compressed: 64 KiB", "zeros: 8.0 MiB", "nothing: 52 MiB"]
    assert len(svg) < 100_000


def test_the_chain_is_drawn_when_asked(tmp_path: Path) -> None:
    image(tmp_path / "base.qcow2")
    top = image(tmp_path / "top.qcow2", "64M", "-b", "base.qcow2", "-F", "qcow2",
                data="write 8M 1M")  # fmt: skip
    with Image(top, trust=True) as opened:
        assert "backing 1: 4.0 MiB" in texts(opened.map_svg(chain=True))
        assert not any("backing" in words for words in texts(opened.map_svg()))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a\x1b[2Jb", "'\"&", "\ud800"])
def test_a_name_is_only_text(name: str) -> None:
    svg = draw(name, "raw", MIB, MIB, Extents.of([Extent(0, MIB, 0, DATA)]))
    kinds = {one.tag.rpartition("}")[2] for one in parsed(svg).iter()}
    assert kinds <= {"svg", "title", "rect", "text", "path"}
    assert "\x1b" not in svg


@pytest.mark.parametrize("size", [0, 1, 511, 2**63 - 1])
def test_disks_of_any_size_are_drawn(size: int) -> None:
    extents = Extents.of([Extent(0, size, 0, DATA)] if size else [])
    assert said(size) in texts(draw("x", "raw", size, size, extents))[-1] or not size


def test_a_scattered_image_makes_no_huge_picture() -> None:
    count = 20_000
    extents = [Extent(i * 65536, 65536, (i * 7919 % count) * 65536, DATA) for i in range(count)]
    svg = draw("x", "qcow2", count * 65536, count * 65536, Extents.of(extents))
    assert len(svg) < 400_000
