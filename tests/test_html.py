"""HTML of values: whatever a guest writes, a notebook shows text and runs nothing."""

from __future__ import annotations

import html as standard
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt import VM, Device, Disk, Result, html

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror='alert(\"2\")'>&lt;b> ' \" \x1b[31m \u202e \0"
)

#: All that is ever written here.
TAGS = {"div", "strong", "table", "thead", "tbody", "tr", "th", "td", "br", "pre", "em"}


class Reader(HTMLParser):
    """Notes the tags, the names of attributes and the text of a document."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def safe(document: str) -> Reader:
    """The document, read; it has nothing but plain tags, all closed, and visible text."""
    document.encode()
    found = Reader(document)
    assert found.tags <= TAGS
    assert found.attributes <= {"style"}
    assert found.open == []
    assert not set(found.text) & set("\0\x1b\u202e\u2066\x7f")
    return found


TEXTS = st.text(st.characters(exclude_categories=()), max_size=60) | st.just(HOSTILE)


@given(TEXTS, st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS) | TEXTS.map(html.Output)))
def test_a_card_is_safe_whatever_is_in_it(title: str, rows: dict[str, Any]) -> None:
    safe(html.card(title, rows))


@given(st.lists(TEXTS, max_size=3), st.lists(st.lists(TEXTS, max_size=3), max_size=3))
def test_a_table_is_safe_whatever_is_in_it(columns: list[str], rows: list[list[str]]) -> None:
    safe(html.table(columns, rows))


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=html.LIMIT))
def test_plain_text_stays_as_it_is(output: str) -> None:
    assert standard.unescape(html.visible(output)) == output


def test_controls_become_visible() -> None:
    assert html.visible("a\0b\x1b[31mc\td\r\ne\ud800") == "a␀b␛[31mc\td\ne\ufffd"


def test_endless_output_is_cut() -> None:
    shown = html.text("<" * (html.LIMIT + 5))
    assert shown.count("&lt;") == html.LIMIT
    assert "5 more characters" in safe(shown).text


@pytest.mark.parametrize("output", [HOSTILE, HOSTILE.encode() + b"\xff"])
def test_a_result_shows_hostile_output_as_text(output: Any) -> None:
    result = Result(("echo", HOSTILE), 3, None, output, output, 0.5, cut=True)
    found = safe(result._repr_html_())
    assert "<script>alert(1)</script>" in found.text
    assert "exit code 3 after 0.500 s" in found.text
    assert "more than was kept" in found.text


def test_a_vm_and_its_explanation_show_their_options() -> None:
    vm = VM(name="<b>", disks=[Disk("<i>.qcow2")], devices=[Device("edu")])
    assert "<i>.qcow2" in safe(vm._repr_html_()).text
    text = safe(vm.explain()._repr_html_()).text
    for reason in vm.explain():
        assert reason.field in text
