"""Which of a guest's last lines an error quotes."""

from __future__ import annotations

import pytest

from pyvirt.running.exit import LINES, panic, tail, telling

PANIC = "[    2.26] Kernel panic - not syncing: sysrq triggered crash"
TRACE = [f"[    2.27]  call {number}" for number in range(40)]


def test_the_last_lines_are_those_with_text() -> None:
    assert tail("".join(f"{number}\n\n" for number in range(9))) == "4\n5\n6\n7\n8"


def test_a_panic_is_kept_however_long_its_trace() -> None:
    lines = tail("\n".join(["booting", PANIC, *TRACE])).splitlines()
    assert lines == [PANIC, *TRACE[-LINES + 1 :]]


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("", ""),
        ("one\ntwo\n", "two"),
        (f"{PANIC}\nafter\n", "Kernel panic - not syncing: sysrq triggered crash"),
        ("Kernel panic - first\nKernel panic - second\n", "Kernel panic - second"),
    ],
)
def test_the_line_that_tells_most(output: str, line: str) -> None:
    assert telling(output) == line


def test_no_panic_is_none() -> None:
    assert panic("all is well\n") == ""
