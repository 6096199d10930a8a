"""The picture of a trace: well-formed, bounded, with every request in it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.traces import DISK, MS, TX, Made, flush, read, trace, write

from pyvirt.virtio.plot import Scale
from pyvirt.virtio.quantities import amount, duration, number
from pyvirt.virtio.records import Lost
from pyvirt.virtio.trace import Trace

SVG = "{http://www.w3.org/2000/svg}"


def texts(found: Trace) -> list[str]:
    root = ElementTree.fromstring(found.svg())
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def dots(found: Trace) -> list[tuple[str, int, int]]:
    """Colour and place of each dot."""
    root = ElementTree.fromstring(found.svg())
    return [
        (path.attrib["fill"], int(x), int(y))
        for path in root.iter(f"{SVG}path")
        if path.attrib.get("fill", "none") != "none"
        for x, y in re.findall(r"M(\d+) (\d+)h", path.attrib["d"])
    ]


def test_it_says_what_it_shows() -> None:
    requests = [read(0, 4096, 1 * MS, MS), write(0, 512, 2 * MS, 50_000), flush(3 * MS, 20 * MS)]
    said = texts(trace(requests, [DISK], ended=100 * MS, lost=Lost(3, 0, 0)))
    assert said[0] == "3 requests in 100 ms, 3 requests missed, 0 uncertain, 0 dropped"
    assert said[1:4] == ["read", "write", "flush"]
    for label in ("latency", "data of a request", "requests in flight", "10 µs", "100 ms",
                  "512 B", "8 KiB", "20 ms", "0 s"):  # fmt: skip
        assert label in said


def test_each_request_is_where_it_belongs() -> None:
    requests = [read(0, 4096, 20 * MS, MS), write(0, 65536, 80 * MS, 100 * MS)]
    found = dots(trace(requests, [DISK], ended=100 * MS))
    assert len(found) == 6, "each in three panels"
    colours = sorted({colour for colour, *_ in found})
    assert len(colours) == 2
    (early,) = {x for colour, x, _ in found if colour == "#0072b2"}
    (late,) = {x for colour, x, _ in found if colour == "#d55e00"}
    assert early < late
    lows = [y for colour, _, y in found if colour == "#0072b2"]
    highs = [y for colour, _, y in found if colour == "#d55e00"]
    assert highs[0] < lows[0], "a longer latency is higher"
    assert highs[1] < lows[1], "and so is more data"


def test_the_picture_of_many_requests_stays_small() -> None:
    many = trace([read(0, 4096, at * 1000, at % 977) for at in range(20_000)], [DISK])
    assert len(many.svg()) < 1_000_000


def test_a_picture_can_be_a_png() -> None:
    pytest.importorskip("cairosvg")
    data = trace([read(0, 4096, 1, MS)], [DISK]).png()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") == 1720, "two pixels for each"


def test_a_notebook_shows_figures_and_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trace([read(0, 4096, 1, MS)], [DISK])
    assert "<svg" in found._repr_html_()
    assert "disk0 request0" in found._repr_html_()
    monkeypatch.setattr("pyvirt.virtio.trace._AT_ONCE", 0)
    assert "<svg" not in found._repr_html_()


def test_an_empty_trace_is_a_picture() -> None:
    assert texts(trace([], []))[0] == "0 requests in 0 s, nothing lost"
    assert texts(trace([], [])).count("nothing was seen") == 3


def test_names_of_guests_cannot_break_it() -> None:
    ElementTree.fromstring(trace([Made(0, 1, 2, b"<&>" * 30)], [TX]).svg())


@given(st.lists(st.tuples(st.integers(0, 2**61), st.integers(0, 2**61), st.integers(0, 2**31),
                          st.integers(0, 2**16 - 1)), max_size=8))  # fmt: skip
def test_any_trace_is_a_picture(requests: list[tuple[int, int, int, int]]) -> None:
    made = [read(0, size, made, took, depth=depth) for made, took, size, depth in requests]
    found = trace(made, [DISK])
    ElementTree.fromstring(found.svg())
    for _, x, y in dots(found):
        assert 0 <= x <= 860
        assert 0 <= y <= 660


def test_scales() -> None:
    assert Scale(0, 10, ()).share(5) == 0.5
    assert Scale(1, 100, (), True).share(10) == pytest.approx(0.5)
    assert Scale(1, 100, (), True).share(0) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (duration(0), "0 s"), (duration(1.5e-7), "150 ns"), (duration(8.52e-5), "85.2 µs"),
        (duration(0.4), "400 ms"), (duration(75), "75 s"), (amount(0), "0 B"),
        (amount(1536), "1.5 KiB"), (amount(1 << 60), "1024 PiB"), (number(17), "17"),
        (number(350_000_000), "350 M"),
    ],
)  # fmt: skip
def test_quantities(text: str, said: str) -> None:
    assert text == said
