"""The page about traces is run: every example shows what it says."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from support.traces import DISK, MS, RX, TX, Made, flush, read, trace, write

from pyvirt.virtio import Trace
from pyvirt.virtio.records import Lost

PAGE = (Path(__file__).parents[2] / "docs" / "traces.md").read_text()


def example() -> Trace:
    """The trace that the page speaks of."""
    ether = bytes.fromhex("525400123456525400abcdef")
    syn = ether + bytes.fromhex(
        "080045000028000040004006 0000 0a00020f0a000202 9c400050 0000000000000000 5002000000000000"
    )
    answer = (ether + b"\x08\x06").ljust(60, b"\0")
    return trace(
        [
            read(2048, 4096, 1 * MS, 250_000),
            write(4096, 65536, 2 * MS, 1_500_000, depth=2),
            flush(4 * MS, 8 * MS),
            Made(1, 5 * MS, 5 * MS + 40_000, bytes(12) + syn),
            Made(2, 6 * MS, 9 * MS, b"", bytes(10) + b"\1\0" + answer, writable_length=2048,
                 written=72),
            read(2056, 4096, 15 * MS, 0),
        ],
        [DISK, TX, RX],
        ended=20 * MS,
        realtime=1_700_000_000 * 10**9,
        lost=Lost(requests=1),
    )  # fmt: skip


def test_the_examples_show_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    example().save("fio.trace")
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    test = doctest.DocTestParser().get_doctest("".join(blocks), {}, "traces.md", None, 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF)
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
    assert len(test.examples) >= 12
