"""What may be run in a guest, whichever agent runs it: checked before it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyvirt.errors import SpecError

Command = str | Sequence[str]


def check_command(command: Command, env: Mapping[str, str] | None = None) -> None:
    """Raise `SpecError` for a command or an environment that no process can have."""
    if not isinstance(command, str | Sequence) or isinstance(command, bytes):
        raise SpecError("command", "must be text for a shell, or a list of words", command)
    words = [command] if isinstance(command, str) else list(command)
    if not words or not words[0]:
        raise SpecError("command", "must name a program", command)
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            raise SpecError("command", "must be text without NUL, or a list of that", command)
    for name, value in (env or {}).items():
        if not name or "=" in name or "\0" in name + str(value) or not isinstance(value, str):
            raise SpecError("env", "must map names without '=' to text without NUL", {name: value})


def check_port(port: int) -> None:
    """Raise `SpecError` for what is no port."""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise SpecError("port", "must be from 1 to 65535", port)
