"""Results survive a file whole, and a file that is none says so."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bench_results import results

from pyvirt.bench import Failure, Results, Row
from pyvirt.bench.results import _parsed
from pyvirt.errors import ResultsError, SpecError

ROW = Row("ide", "ide", "write 4k", 0, 1, "throughput", 2.5e6, "B/s", options={"cache": "none"})
RESULTS = Results(
    [ROW, attrs.evolve(ROW, point="virtio-blk", order=0, busy=True)],
    [Failure("lsi", 1, "QEMU ended: killed by SIGSEGV", "last words")],
    {"accelerator": "tcg", "command lines": {"ide": ["qemu", "-x"]}},
    [("virtio-blk", "ide")],
)


def test_saved_and_loaded_they_are_the_same(tmp_path: Path) -> None:
    path = RESULTS.save(tmp_path / "a.json")
    assert Results.load(path) == RESULTS
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_save_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = RESULTS.save(tmp_path / "a.json")
    broken = attrs.evolve(RESULTS, meta={"what": object()})
    with pytest.raises(TypeError):
        broken.save(path)
    assert Results.load(path) == RESULTS
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = RESULTS.save(tmp_path / "a.json").read_bytes()
    cut = tmp_path / "cut.json"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        with pytest.raises(ResultsError) as caught:
            Results.load(cut)
        assert caught.value.path == str(cut)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("[]", "it is another kind of file", id="a-list"),
        pytest.param('{"rows": []}', "it is another kind of file", id="no-format"),
        pytest.param('{"format": 2}', "it is of format 2, this pyvirt reads 1", id="newer"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ResultsError) as caught:
        Results.load(path)
    assert str(caught.value) == f"{path} holds no benchmark results: {reason}"
    assert caught.value.reason == reason


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"format": 1, "rows": [{"point": 5}]}')
    with pytest.raises(ResultsError, match=r"it is damaged .*rows\[0\].point"):
        Results.load(path)


def test_added_they_hold_both() -> None:
    more = Results([attrs.evolve(ROW, round=7)], meta={"accelerator": "tcg", "own": 1})
    both = RESULTS + more
    assert [row.round for row in both.rows] == [0, 0, 7]
    assert (both.failures, both.pairs) == (RESULTS.failures, RESULTS.pairs)
    assert both.meta == {**RESULTS.meta, "own": 1}


def test_added_rounds_that_both_have_are_counted_on() -> None:
    both = RESULTS + RESULTS
    assert [row.round for row in both.rows] == [0, 0, 1, 1]
    assert [one.round for one in both.failures] == [1, 2]


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        pytest.param({"accelerator": "kvm"}, "must have the same accelerator, tcg", id="kvm"),
        pytest.param({"host": {"cpu": "Z80"}}, "must have the same processor, 6502", id="cpu"),
    ],
)
def test_what_must_not_be_compared_is_not_added(meta: dict[str, object], reason: str) -> None:
    ours = attrs.evolve(RESULTS, meta={"accelerator": "tcg", "host": {"cpu": "6502"}})
    with pytest.raises(SpecError) as caught:
        ours + Results(meta=meta)
    assert (caught.value.field, caught.value.reason) == ("other", reason)


def test_a_figure_that_is_no_number_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        attrs.evolve(ROW, value=float("nan"))
    assert str(caught.value) == "value must be a finite number, got nan"


@settings(max_examples=120)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever stands there: other values of any type in any place of the file."""
    whole = json.loads(_text())
    place: Any = whole
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
        | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(), st.none(), max_size=1)
    )  # fmt: skip
    try:
        found = _parsed(json.dumps(whole).encode(), "a.json")
    except ResultsError:
        return
    assert found.table()
    assert found.html()


def _text() -> str:
    with tempfile.TemporaryDirectory() as folder:
        return results().save(Path(folder, "a.json")).read_text()
