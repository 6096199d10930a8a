"""A console's text, as it comes: whatever is cut where."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyvirt.running.console import Console


@pytest.mark.parametrize("size", range(1, 12))
def test_the_last_line_is_found_whenever_its_end_comes(tmp_path: Path, size: int) -> None:
    log = tmp_path / "log"
    output = b"\x1b[1mfirst\x1b[0m\r\nlast \xc3\xbc\r\n"
    console = Console("serial0", log, tmp_path / "none")
    waiting = console.expect(r"first\nlast ü\n")
    with log.open("ab", buffering=0) as file:
        for at in range(0, len(output), size):
            file.write(output[at : at + size])
            console._look()
    assert waiting.result(20).group() == "first\nlast ü\n"
