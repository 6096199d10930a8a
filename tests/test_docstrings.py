"""Every example in a docstring is run: blocks of Python and TOML, and calls in the text."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import textwrap
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.descriptions import names_of
from support.qemu import needs_qemu

from pyvirt.files import described

ROOT = Path(__file__).parents[1]

BLOCK = re.compile(r"(?:^|\n\n)((?: {4}.*(?:\n|$)|\n)+)")
CALL = re.compile(r"``([A-Z]\w*\([^`]*\))``")


def docstrings() -> Iterator[tuple[str, str]]:
    """Each docstring with the module it is in."""
    for file in sorted(ROOT.glob("pyvirt/**/*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, _plain(node)


def _plain(node: Any) -> str:
    """A docstring without the indentation of its place (and no more, as clean ones have)."""
    text = ast.get_docstring(node, clean=False) or ""
    margin = " " * (node.body[0].col_offset if node.body else 0)
    return "\n".join(line.removeprefix(margin).rstrip() for line in text.splitlines())


def compiled(text: str) -> Any:
    """The code of a block that is Python; None for tables and pictures."""
    try:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        return compile(text, "<docstring>", "exec", flags, dont_inherit=True)
    except SyntaxError:
        return None


def blocks() -> Iterator[Any]:
    for module, docstring in docstrings():
        for found in BLOCK.finditer(docstring):
            text = textwrap.dedent(found[1]).strip()
            if text and compiled(text) is not None:
                yield pytest.param(module, text, id=f"{module}: {text.splitlines()[0]}")


def calls() -> Iterator[Any]:
    for module, docstring in docstrings():
        for found in CALL.finditer(docstring):
            if "..." not in found[1]:
                yield pytest.param(module, found[1], id=f"{module}: {found[1]}")


@needs_qemu
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("module", "text"), list(blocks()))
def test_an_example_runs(
    module: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for image in re.findall(r'"([\w.-]+\.qcow2)"', text):  # what the example takes for granted
        command = ["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"]
        subprocess.run(command, check=True)
    code = compiled(text)
    names = {"pyvirt": import_module("pyvirt"), **names_of(module)}
    if code.co_flags & inspect.CO_COROUTINE:

        async def main() -> None:
            await eval(code, names)

        asyncio.run(main())
    else:
        exec(code, names)


@pytest.mark.parametrize(("module", "text"), list(calls()))
def test_a_call_in_the_text_can_be_made(module: str, text: str) -> None:
    assert eval(text, names_of(module)) is not None


def test_the_file_in_a_docstring_is_a_vm() -> None:
    docstring = import_module("pyvirt.files").__doc__ or ""
    found = BLOCK.search(docstring)
    assert found is not None
    mapping = tomllib.loads(textwrap.dedent(found[1]))
    vm = described(mapping)
    assert [len(vm.disks), len(vm.nics), len(vm.devices)] == [1, 1, 1]


def test_there_are_examples() -> None:
    assert len(list(blocks())) >= 3
    assert len(list(calls())) >= 3
