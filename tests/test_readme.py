"""Every example of the README is run, and shows what it says.

What differs between hosts and moments is made equal on both sides first: see `VOLATILE`.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt.files import loads

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

#: What may differ, and what stands for it.
VOLATILE = (
    (re.compile(r"Linux \d+\.\d+\.\d+\S*"), "Linux VERSION"),
    (re.compile(r"after \d+\.\d{3} s"), "after SECONDS"),
    (re.compile(r"\[ *\d+\.\d{6}\]"), "[SECONDS]"),
)


def settled(text: str) -> str:
    """`text` without what differs each time."""
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines() if line.strip())


def blocks(kind: str) -> list[str]:
    """The blocks of one kind, in order."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


class Same(doctest.OutputChecker):
    """Equal once settled."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return settled(want) == settled(got)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the examples run: with the files that the README speaks of."""
    (command,) = re.findall(r"`(qemu-img create .*?)`", README)
    subprocess.run(command.split(), cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "vm.toml").write_text(*blocks("toml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@needs_qemu
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("folder")
def test_the_sessions_of_the_readme_show_what_happens() -> None:
    said: list[str] = []
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(Same(), verbose=False)
    test = parser.get_doctest("\n".join(blocks("pycon")), {}, "README.md", "README.md", 0)
    runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 20


@needs_qemu
@pytest.mark.timeout(240)
def test_the_commands_of_the_readme_print_what_it_says(folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    (session,) = [block for block in blocks("console") if block.startswith("$ ")]
    for example in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, shown = example.partition("\n")
        said = subprocess.run(
            ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path},
            capture_output=True, text=True,
        )  # fmt: skip
        assert (settled(said.stdout), said.stderr) == (settled(shown), ""), command


def test_the_file_of_the_readme_is_a_vm() -> None:
    (text,) = blocks("toml")
    vm = loads(text)
    assert {*tomllib.loads(text)} == {"memory", "cpus", "disks", "nics", "devices"}
    assert len(vm.devices) == 1


def test_the_first_screen_is_short() -> None:
    first = README.index("```pycon")
    lines = README[: README.index("```", first + 3)].splitlines()
    assert len(lines) < 40


def test_the_tree_of_the_readme_is_there() -> None:
    tree = README.rpartition("## Where things are")[2].split("```")[1]
    named = [line.split()[0] for line in tree.strip().splitlines()]
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name
