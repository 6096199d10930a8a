"""What all commands share: help that is quick, faults that are one sentence, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest
from cli_tool import COMMAND, document, pyvirt

from pyvirt.cli.group import COMMANDS, group
from pyvirt.cli.output import sentence, size, table
from pyvirt.cli.progress import line
from pyvirt.errors import StartError, TimedOut

HEAVY = {"pyvirt.running", "pyvirt.vm", "pyvirt.qmp", "msgspec", "asyncio", "cffi", "readline"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    context = click.Context(group)
    command = group.get_command(context, name)
    assert command is not None
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == COMMANDS[name]


def test_help_loads_no_more_than_it_shows() -> None:
    code = "import sys; from pyvirt.cli import main; main(['--help']); print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(said.stdout.splitlines()[-1].split())
    assert "Commands:" in said.stdout
    assert not loaded & HEAVY


def test_the_version() -> None:
    assert pyvirt("--version").stdout == "pyvirt 0.1.0\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["comand-line"], "There is no command 'comand-line'; did you mean 'command-line'?"),
        (["run"], "Give a COMMAND, or --console for a shell."),
        (["run", "--console"], "--console needs a terminal, and no --json."),
        (["run", "--file", "/a=/nothing", "x"], "--file /a=/nothing: there is no /nothing."),
        (["run", "--env", "x", "y"], "--env wants NAME=VALUE, got 'x'."),
        (["command-line", "--forward", "x"], "--forward wants HOST:GUEST, got 'x'."),
        (["command-line", "--initrd", "x"], "--initrd goes with --kernel."),
        (["command-line", "--cpus", "0"], "Invalid value for '-c' / '--cpus'"),
    ],
)
def test_a_wrong_call_is_told_and_ends_with_2(words: list[str], said: str) -> None:
    end = pyvirt(*words)
    assert (end.returncode, end.stdout) == (2, "")
    assert said in end.stderr
    assert "Traceback" not in end.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["command-line", "--disk", "a,bsu=x"],
         "disks[0].bsu is no field of Disk (did you mean 'bus'?), got 'x'"),
        (["command-line", "--memory", "lots"],
         "memory must be bytes or text such as '512M', got 'lots'"),
        (["qmp", "/nowhere", "query-status"], "/nowhere: No such file or directory"),
        (["qmp-stubs", "qemu-nothing"],
         "the program qemu-nothing is not available in this host; "
         "install qemu-system-x86, or name another with binary="),
    ],
)  # fmt: skip
def test_a_fault_is_one_sentence_and_ends_with_1(words: list[str], said: str) -> None:
    end = pyvirt(*words)
    assert (end.returncode, end.stdout, end.stderr) == (1, "", f"pyvirt: {said}\n")


def test_a_fault_is_a_document_too() -> None:
    error = document("command-line", "--json", "--disk", "a,bsu=x", code=1)["error"]
    assert error == {
        "type": "SpecError",
        "message": "disks[0].bsu is no field of Disk (did you mean 'bus'?), got 'x'",
        "field": "disks[0].bsu",
        "reason": "is no field of Disk (did you mean 'bus'?)",
        "value": "x",
    }


def test_what_nobody_expected_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; from pyvirt.cli import group\n"
        "def fail(*_): raise KeyError('x')\n"
        "group.group.invoke = fail\n"
        "sys.exit(group.run(['cache', 'list']))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = "pyvirt: unexpected KeyError: 'x' (PYVIRT_TRACEBACK=1 shows where)\n"
    assert (said.returncode, said.stderr) == (1, expected)
    environment = {**os.environ, "PYVIRT_TRACEBACK": "1"}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert "in fail" in said.stderr


def test_sentences_are_one_line() -> None:
    error = StartError("qemu", "exit code 1", "first\n  second\n")
    assert sentence(error) == "qemu did not start: exit code 1: first; second"
    assert sentence(TimedOut("a start", 3)) == "a start took longer than 3 s"
    assert sentence(FileNotFoundError(2, "No such file or directory", "a")) == (
        "a: No such file or directory"
    )


def test_sizes_and_tables() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1 << 20, 10 << 20, 5 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "1.0 MiB", "10 MiB", "5.0 TiB",
    ]  # fmt: skip
    assert table([("a", "b"), ("ccc", "d")]) == "a    b\nccc  d"


def test_a_line_of_progress() -> None:
    assert line("building", None, 80) == "building ..."
    assert line("loading", 0.5, 80) == f"loading [{'#' * 12}{' ' * 12}]  50%"
    assert line("loading", 7.0, 20) == "loading [###########"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str) -> None:
    end = pyvirt("completion", shell)
    assert "_PYVIRT_COMPLETE" in end.stdout
    assert document("completion", shell, "--json")["script"] in end.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pyvirt do", "doctor"),
        ("pyvirt run --mach", "--machine"),
        ("pyvirt run --machine q", "q35"),
        ("pyvirt run --nic e1000e", "e1000e"),
        ("pyvirt command-line --device UsbT", "UsbTablet"),
    ],
)
def test_words_are_completed(words: str, expected: str) -> None:
    end = pyvirt(
        _PYVIRT_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
    )
    assert f"plain,{expected}" in end.stdout.splitlines()


def test_the_module_is_the_command() -> None:
    assert COMMAND[1:] == ["-m", "pyvirt"]
    assert json.loads(pyvirt("cache", "list", "--json").stdout)["entries"] is not None
