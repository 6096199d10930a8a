"""The demo: its lines are run as they are shown, and it ends well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import demo


def told() -> None:
    """Not shown."""
    # The first remark
    # goes on.
    first = [
        1,
        2,
    ]

    print(first)
    # The second.
    print("done")


def test_statements_keep_their_text_and_the_remark_above() -> None:
    found = [(one.comment, one.text) for one in demo.statements(told)]
    assert found == [
        ("The first remark goes on.", "first = [\n    1,\n    2,\n]"),
        ("", "print(first)"),
        ("The second.", 'print("done")'),
    ]


def test_statements_are_shown_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    demo.show(list(demo.statements(told)), {})
    assert capsys.readouterr().out.splitlines() == [
        "", "The first remark goes on.", ">>> first = [", "...     1,", "...     2,", "... ]",
        ">>> print(first)", "[1, 2]", "", "The second.", '>>> print("done")', "done",
    ]  # fmt: skip


@needs_qemu
@pytest.mark.timeout(200)
def test_the_demo_does_what_it_says(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "pyvirt.demo"], capture_output=True, text=True, timeout=180,
        env={"PATH": "/usr/bin:/bin:/usr/sbin", "TMPDIR": str(tmp_path),
             "HOME": str(Path.home())},
    )  # fmt: skip
    assert (said.returncode, said.stderr) == (0, "")
    for part in ("Linux ", "/dev/vda ", "8388608 bytes in", "unchanged: True", "guest-shutdown"):
        assert part in said.stdout
    assert "\x1b" not in said.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_lacks_something_is_told(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "pyvirt.demo"], capture_output=True, text=True,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert said.returncode == 1
    assert "qemu-system-x86_64" in said.stderr
    assert "Traceback" not in said.stderr
