"""What is made of results: ratios, tables, pictures, reports and data frames."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bench_results import IDE, VIRTIO, count, results, series

from pyvirt.bench import Results
from pyvirt.bench.groups import groups
from pyvirt.bench.ratios import better

LABEL = "TCG: processors emulated, not KVM"
SAID = "do not carry over to a KVM host"


def test_a_ratio_is_the_median_of_pairs() -> None:
    ratio = results().ratios()[0]
    pairs = sorted(b / a for a, b in zip(IDE, VIRTIO, strict=True))
    assert (ratio.point, ratio.baseline) == ("virtio-blk/write-1M-x4", "ide/write-1M-x4")
    assert sorted(ratio.ratios) == pairs
    assert ratio.median == pairs[3]
    assert pairs[0] <= ratio.low <= ratio.lower <= ratio.median <= ratio.upper <= ratio.high
    assert (ratio.rounds, ratio.busy, ratio.confidence) == (7, 1, 0.95)
    assert str(ratio) == "2.01 x (1.89 to 2.15)"


def test_pairs_need_a_common_round_and_a_baseline_that_is_not_nothing() -> None:
    rows = [
        *series("ide", "w", [1.0, 0.0]),
        *(attrs.evolve(row, round=row.round + 1) for row in series("nvme", "w", [3.0, 4.0])),
    ]
    assert Results(rows, pairs=[("nvme/w", "ide/w"), ("gone", "ide/w")]).ratios() == ()


def test_groups_have_the_baseline_first_and_virtio_last() -> None:
    disk, net = groups(results())
    assert [line.device for line in disk.lines] == ["ide", "virtio-blk"]
    assert (disk.title, disk.cost, disk.metric) == (
        "write-1M-x4 on ram", "accesses/request", "throughput",
    )  # fmt: skip
    assert (net.title, net.cost, net.lines[0].accesses) == (
        "send-tcp on tap", "accesses/MiB", 206,
    )  # fmt: skip


def test_the_table_tells_all_and_where_it_comes_from() -> None:
    lines = results().table().splitlines()
    assert lines[0] == LABEL
    assert lines[1].startswith("2 x AMD EPYC, Linux 6.1.0, QEMU 7.2.22, guest Linux 6.1.0-41")
    (virtio,) = (line.split() for line in lines if line.startswith("  virtio-blk"))
    assert " ".join(virtio) == (
        "virtio-blk 191 MiB/s 182 to 203 MiB/s 2.01 x (1.89 to 2.15) 7 1"
    )
    (ide,) = (line.split() for line in lines if line.startswith("  ide"))
    assert ide[-2:] == ["7*", "31"]
    assert any("688 Mbit/s" in line for line in lines)
    assert "  lsi/write-1M-x4, round 2: QEMU ended: killed by SIGSEGV" in lines
    assert SAID in " ".join(line.strip() for line in lines)
    assert str(results()) == results().table()
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize("shown", ["table", "svg", "html", "_repr_html_"])
def test_every_table_and_picture_names_the_accelerator(shown: str) -> None:
    assert LABEL in getattr(results(), shown)()
    for name, label in (("kvm", "KVM"), ("xen", "accelerator xen")):
        text = getattr(results(accelerator=name), shown)()
        assert label in text
        assert LABEL not in text


def test_few_rounds_say_how_sure_they_are() -> None:
    few = attrs.evolve(results(), rows=[row for row in results().rows if row.round < 3])
    assert "times ide (75 % interval)" in few.table()
    assert "Fewer than 6 rounds give less than 95 %" in few.table()


def test_nothing_measured_is_said() -> None:
    assert "Nothing was measured." in Results().table()
    assert "nothing was measured" in Results().svg()
    assert "No figures of latency." in results().table("latency")


def test_the_picture_is_xml_with_a_dot_for_every_round() -> None:
    tree = ElementTree.fromstring(results().svg())
    dots = tree.findall("{*}circle")
    rounds, ratios, hollow = 4 * 7, 2, [one for one in dots if one.get("fill") == "#fff"]
    assert (len(dots), len(hollow)) == (rounds + ratios, 1)
    words = {one.text for one in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {"virtio-blk", "ide", "2.01 x", "1", "31", "688 Mbit/s", "206"} <= words
    for one in tree.iter():
        for name in ("x", "cx"):
            assert 0 <= float(one.get(name, 1)) <= 960


def test_the_picture_as_png(tmp_path: Path) -> None:
    pytest.importorskip("cairosvg")
    assert results().png(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


class Tags(HTMLParser):
    """Opened tags that are not closed, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "path", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_report_is_one_whole_file() -> None:
    page = results().html()
    tags = Tags(page)
    assert (tags.open, tags.links) == ([], [])
    assert "<script" not in page
    for words in ("2.01 x", "qemu-system-x86_64 -name &#x27;a b&#x27;", "last &lt;words&gt;", SAID):
        assert words in page


NASTY = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda text: "\0" not in text)


@settings(max_examples=15)
@given(NASTY, NASTY, st.floats(0, 1e15), st.sampled_from(["B/s", "1/s", "s", "B", "1"]))
def test_whatever_a_file_holds_can_be_shown(
    name: str, other: str, value: float, unit: str
) -> None:
    rows = [
        *series(name, "w", [value, 1.0], unit=unit, name="p", metric=other),
        *series(other, "w", [2.0, value], unit=unit, name="q", metric=other, busy=(0,)),
    ]
    found = Results(rows, meta={"accelerator": name, other: name}, pairs=[("p", "q")])
    assert all(line.isprintable() for line in found.table().split("\n"))
    ElementTree.fromstring(found.svg())
    assert Tags(found.html()).open == []


def test_other_metrics_can_be_shown() -> None:
    told = attrs.evolve(results(), rows=results().rows + tuple(
        count("ide", "write-1M-x4", "interrupts-per-request", 2)))  # fmt: skip
    assert "interrupts-per-request" in told.table("interrupts-per-request")
    assert "interrupts / request" in told.html()


def test_more_is_better_of_rates_and_less_of_times_and_costs() -> None:
    told = {"throughput": "B/s", "latency-p50": "s", "accesses-per-request": "1", "depth": "1"}
    assert [better(name, unit) for name, unit in told.items()] == [1, -1, -1, 0]


def test_data_frames_hold_every_row() -> None:
    pytest.importorskip("polars")
    pytest.importorskip("pandas")
    rows = results().rows
    frame = results().to_polars()
    assert frame.height == len(rows)
    assert frame["value"].sum() == pytest.approx(sum(row.value for row in rows))
    assert frame["accelerator"].unique().to_list() == ["tcg"]
    assert json.loads(frame["options"][0]) == dict(rows[0].options)
    other = results().to_pandas()
    assert other["busy"].sum() == 1
    assert list(other.columns) == frame.columns
    assert Results().to_polars().height == len(Results().to_pandas()) == 0
