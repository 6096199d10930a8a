"""The page about rings is run: on a guest, and without one."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Disk

TEXT = (Path(__file__).parents[2] / "docs" / "rings.md").read_text()
_BLOCK = re.compile(r"(<!-- guest -->\n)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(bool(match[1]), match[2]) for match in _BLOCK.finditer(TEXT)]


def run(text: str, names: dict[str, Any], least: int) -> None:
    test = doctest.DocTestParser().get_doctest(text, names, "rings.md", None, 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF)
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
    assert len(test.examples) >= least


def test_the_examples_over_bytes_show_what_they_say() -> None:
    run("".join(text for guest, text in BLOCKS if not guest), {}, 20)


@needs_qemu
@pytest.mark.timeout(240)
def test_the_examples_of_a_guest_show_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    with VM(memory="256M", disks=[Disk(path, format="raw")]).start() as running:
        running.wait_for(agent=True)
        running.run("dd if=/dev/vda of=/dev/null bs=4k", check=True)
        run("".join(text for guest, text in BLOCKS if guest), {"running": running}, 5)
