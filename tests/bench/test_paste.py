"""Tables of benchmarks get into a README between their marks, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.bench_results import results

ROOT = Path(__file__).parents[2]
MARKS = "<!-- bench:begin -->\n<!-- bench:end -->\n"


@pytest.fixture
def paste(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import paste

    return paste


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(f"# One\n{MARKS}three\n")
    return path


def test_a_table_replaces_what_stood_at_its_place(paste: Any, readme: Path) -> None:
    for place, text in (("devices", "first\n"), ("pyvirt", "own"), ("devices", "second")):
        paste.put(readme, place, text)
    assert readme.read_text() == (
        "# One\n<!-- bench:begin -->\n"
        "<!-- bench:begin devices -->\n\nsecond\n\n<!-- bench:end devices -->\n"
        "<!-- bench:begin pyvirt -->\n\nown\n\n<!-- bench:end pyvirt -->\n"
        "<!-- bench:end -->\nthree\n"
    )


@pytest.mark.parametrize(
    "text", ["", "<!-- bench:end x -->\n<!-- bench:begin x -->", "<!-- bench:end -->\n" * 2]
)
def test_a_file_without_the_marks_stays_as_it_is(paste: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="must have <!-- bench:begin --> and then"):
        paste.put(path, "x", "table")
    assert path.read_text() == text


def test_the_readme_has_a_place(paste: Any, tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text((ROOT / "README.md").read_text())
    paste.put(copy, "devices", "table")
    assert "\n\ntable\n\n" in copy.read_text()


def test_figures_of_devices_carry_intervals_accelerator_and_machine(paste: Any) -> None:
    lines = paste.devices(results()).splitlines()
    assert lines[0].startswith("**TCG: processors emulated, not KVM.** On 2 x AMD EPYC, Linux")
    assert (
        "| write-1M-x4 on ram | virtio-blk | 191 MiB/s | **2.01** x ide | 1.89 to 2.15 (95 %) "
        "| 7 | 1 / request |"
    ) in lines
    assert "do not carry over to a KVM host" in "".join(lines)


def test_the_command_pastes_stored_results(readme: Path, tmp_path: Path) -> None:
    stored = results().save(tmp_path / "a.json")
    words = [sys.executable, "-m", "benchmarks", "--readme", readme, "--devices", stored]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "**2.01** x ide" in readme.read_text()
    assert readme.read_text().endswith("three\n")
