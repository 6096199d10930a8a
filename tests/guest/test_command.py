"""What no process can be given is refused before it is sent."""

from __future__ import annotations

from typing import Any

import pytest

from pyvirt import SpecError
from pyvirt.guest.command import check_command, check_port


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("", "command must name a program, got ''"),
        ([], "command must name a program, got []"),
        ([""], "command must name a program, got ['']"),
        (["ls", 1], "command must be text without NUL, or a list of that, got ['ls', 1]"),
        ("a\0b", "command must be text without NUL, or a list of that, got 'a\\x00b'"),
        (3, "command must be text for a shell, or a list of words, got 3"),
        (b"ls", "command must be text for a shell, or a list of words, got b'ls'"),
    ],
)
def test_a_command_that_cannot_be(command: Any, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_command(command)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("env", [{"A=B": "1"}, {"": "1"}, {"A": "\0"}, {"A": 1}])
def test_an_environment_that_cannot_be(env: Any) -> None:
    with pytest.raises(SpecError, match=r"^env must map names without '=' to text without NUL"):
        check_command("true", env)


@pytest.mark.parametrize("port", [0, 65536, -1, "80", True])
def test_a_port_that_cannot_be(port: Any) -> None:
    with pytest.raises(SpecError, match=r"^port must be from 1 to 65535, got "):
        check_port(port)


def test_what_can_be_run() -> None:
    check_command("true")
    check_command(("ls", "-l", "grüße"), {"A": "", "B_C": "x=y"})
    check_port(22)
