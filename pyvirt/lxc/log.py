"""What liblxc's log tells: why a start failed, and how a container's first process ended."""

from __future__ import annotations

import re

from attrs import frozen

_LINE = re.compile(
    r"^lxc \S+ \d+\.\d+ (?P<level>[A-Z]+) +(?P<part>\S+) - (?P<place>\S+?):(?P<function>\w+):\d+ - "
    r"(?P<said>.*)$",
    re.MULTILINE,
)
_STARTED = re.compile(r'post_start:\d+ - Started ".*" with pid "(\d+)"')
_CODE = re.compile(r"Child <(\d+)> ended on error \((\d+)\)")
_SIGNAL = re.compile(r"Child <(\d+)> ended on signal [^(\n]*\((\d+)\)")

#: Lines that say only that something else, told before, failed.
_ECHOES = ("Received container state", "Failed to spawn container", "Error request exit code",
           "The container failed to start", "Additional information", "To get more details",
           "Received error \"", "Failed to receive file descriptors for command",
           "Connection reset by peer - Failed to receive response",
           "An error occurred in another process", "Failed to initialize container", "__lxc_start",
           "Unsupported config key \"lxc.seccomp\"")  # fmt: skip


@frozen
class Ending:
    """The exit code, or the signal, of a container's first process."""

    code: int | None = None
    signal: int | None = None


def causes(log: str) -> list[str]:
    """What went wrong, in liblxc's words, the first cause first."""
    return [words for words in _said(log) if not words.startswith(_ECHOES)]


def errors(log: str) -> list[str]:
    """The causes; where there is none, whatever liblxc complains of."""
    return causes(log) or _said(log)


def _said(log: str) -> list[str]:
    levels = ("ERROR", "CRIT", "FATAL")
    return [m["said"] for m in _LINE.finditer(log) if m["level"] in levels]


def ending(log: str) -> Ending:
    """How the first process that was started last ended; liblxc logs nothing of an exit code 0."""
    started = list(_STARTED.finditer(log))
    if not started:
        return Ending()
    pid, after = started[-1][1], log[started[-1].end() :]
    for kind, pattern in (("code", _CODE), ("signal", _SIGNAL)):
        for found in pattern.finditer(after):
            if found[1] == pid:
                return Ending(**{kind: int(found[2])})
    return Ending(code=0)
