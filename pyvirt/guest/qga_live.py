"""Live commands through the QEMU guest agent, as flows.

Output goes to files that are read as they grow; input comes through a pipe, brought by short
commands, because the agent would lose what a full pipe does not take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from pyvirt.guest.qga import refused
from pyvirt.guest.qga_files import PIECE, opened
from pyvirt.guest.qga_flows import (
    FIRST,
    LONGEST,
    NAME,
    SLOWER,
    data_of,
    member,
    script,
    start,
    until_exit,
)
from pyvirt.qmp.flow import Command, Flow, Pause

_MAKE = 'd=$(mktemp -d) && mkfifo "$d/in" && : >"$d/out" && : >"$d/err" && printf %s "$d"'
_LAUNCH = 'd=$1; shift; exec "$@" <"$d/in" >"$d/out" 2>"$d/err"'
_HOLD = 'exec sleep 2147483647 >"$1/in"'
_FEED = 'exec cat >"$1/in"'
# Opening the pipe both ways wakes whoever waits for its other end; then it breaks.
_REMOVE = 'exec 3<>"$1/in"; rm -rf -- "$1"'


@frozen
class Spawned:
    """A live command: its process, its directory in the guest, and what keeps its input open."""

    pid: int
    directory: str
    holder: int
    outputs: Mapping[int, int]


def spawn(words: list[str]) -> Flow[Spawned]:
    """Start `words` (of `argv`) with streams that `follow` and `feed` serve."""
    code, said, wrong = yield from script(["/bin/sh", "-c", _MAKE])
    if code:
        raise refused(words[1], wrong)
    directory = said.decode("utf-8", "surrogateescape")
    try:
        launch = [words[0], "/bin/sh", "-c", _LAUNCH, NAME, directory, *words[1:]]
        pid = yield from start(launch, capture=False)
        hold = ["/bin/sh", "-c", _HOLD, NAME, directory]
        holder = yield from start(hold, capture=False)
        out = yield from opened(f"{directory}/out", "r")
        err = yield from opened(f"{directory}/err", "r")
    except BaseException:
        yield from script(["/bin/sh", "-c", _REMOVE, NAME, directory])
        raise
    return Spawned(pid, directory, holder, {1: out, 2: err})


def follow(
    live: Spawned, room: Callable[[int], int], feed: Callable[[int, bytes], None]
) -> Flow[dict[str, Any]]:
    """Give `feed` what the command writes, as far as there is `room`, until its end."""
    pause, status = FIRST, {"exited": False}
    while True:
        if not status["exited"]:  # the agent tells of an end only once
            status = yield Command("guest-exec-status", {"pid": live.pid})
        ended, moved = member(status, "exited", bool), 0
        for channel in live.outputs:
            moved += yield from _pour(live, channel, room, feed)
        if ended and not moved and all(room(channel) > 0 for channel in live.outputs):
            return dict(status)
        pause = FIRST if moved else min(pause * SLOWER, LONGEST)
        yield Pause(pause)


def _pour(
    live: Spawned, channel: int, room: Callable[[int], int], feed: Callable[[int, bytes], None]
) -> Flow[int]:
    count = min(room(channel), PIECE)
    if count <= 0:
        return 0
    request = {"handle": live.outputs[channel], "count": count}
    data = data_of((yield Command("guest-file-read", request)), "buf-b64")
    if data:
        feed(channel, data)
    return len(data)


def feed(live: Spawned, data: bytes) -> Flow[None]:
    """Write `data` to the command's input; done when it is in the pipe."""
    words = ["/bin/sh", "-c", _FEED, NAME, live.directory]
    for at in range(0, len(data), PIECE):
        yield from until_exit((yield from start(words, data[at : at + PIECE])))


def end_input(live: Spawned) -> Flow[None]:
    """Nothing follows on its input."""
    yield from script(["/bin/sh", "-c", 'kill "$1"', NAME, str(live.holder)])


def remove(live: Spawned) -> Flow[None]:
    """Forget a command that has ended, and leave nothing of it in the guest."""
    for handle in live.outputs.values():
        yield Command("guest-file-close", {"handle": handle})
    yield from end_input(live)
    yield from script(["/bin/sh", "-c", _REMOVE, NAME, live.directory])
