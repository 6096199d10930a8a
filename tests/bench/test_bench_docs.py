"""The examples of docs/benchmarks.md show what happens; its commands and its code are valid."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import attrs
import click
import pytest
from support.bench_results import results

from pyvirt import bench
from pyvirt.cli.bench import command
from pyvirt.cli.output import Output

TEXT = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()


def test_the_examples_show_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results().save("results.json")
    slower = tuple(
        attrs.evolve(row, value=row.value / 2) if row.unit == "B/s" else row
        for row in results().rows
    )
    attrs.evolve(results(qemu="9.0.0"), rows=slower).save("later.json")
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    test = doctest.DocTestParser().get_doctest(TEXT, {}, "benchmarks.md", "benchmarks.md", 0)
    runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 8


def test_the_commands_are_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """click parses each; nothing is run."""
    monkeypatch.chdir(tmp_path)
    for name in ("before.json", "after.json"):
        results().save(name)
    lines = re.findall(r"^\$ pyvirt bench (.*)$", TEXT, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        name, *words = shlex.split(line)
        assert isinstance(command, click.Group)
        parent = click.Context(command, obj=Output())
        command.commands[name].make_context(name, words, parent=parent)


def test_the_five_lines_run_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```\n(from pyvirt.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    asked: list[bench.Matrix] = []
    monkeypatch.setattr(bench, "run", lambda matrix, **how: asked.append(matrix))
    exec(code)
    (matrix,) = asked
    assert [point.device for point in matrix.points] == ["ide", "virtio-blk", "nvme"]
    assert matrix.rounds == 9
