"""The page about containers is run, and its command lines are ones that there are."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import click
import pytest
from support.containers import needs_containers

from pyvirt import Kept
from pyvirt.cli.container import command
from pyvirt.running.lxc.store import Store

TEXT = (Path(__file__).parents[2] / "docs" / "containers.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@needs_containers
@pytest.mark.timeout(300)
def test_the_examples_show_what_they_say() -> None:
    test = doctest.DocTestParser().get_doctest(
        "".join(blocks("python")), {}, "containers.md", None, 0
    )
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF)
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
    assert len(test.examples) >= 18
    assert (Store().names(), Kept.all()) == ([], [])


@pytest.mark.parametrize("line", "".join(blocks("sh")).splitlines())
def test_a_command_line_is_one_that_there_is(line: str) -> None:
    words = shlex.split(line)
    assert words[:2] == ["pyvirt", "container"]
    found: click.Command = command
    rest = words[2:]
    while isinstance(found, click.Group):
        found = found.commands[rest.pop(0)]
    found.make_parser(click.Context(found)).parse_args(rest)
