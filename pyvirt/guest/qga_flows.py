"""Conversations with the QEMU guest agent: commands, as flows. Files, facts and live commands
are in `qga_files`, `qga_facts` and `qga_live`.

A flow yields `Command` and `Pause` steps; a refused command is thrown in as `GuestError`,
the end of its time as `TimedOut`. The agent serves one request after another, keeps at most
16 MiB of each output stream, and knows no process groups: `setsid` makes them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from pyvirt.errors import ProtocolError, RunTimedOut, SpecError, TimedOut
from pyvirt.guest.carrier import Command as Words
from pyvirt.guest.qga import PEER, refused
from pyvirt.guest.result import Result, decoded
from pyvirt.qmp.flow import Command, Flow, Pause

INPUT = 32 << 20
"""Bytes of input in one request: the agent's JSON parser takes tokens of at most 64 MiB."""

FIRST, SLOWER, LONGEST = 0.0005, 1.15, 0.1  # seconds between looks, and how they grow
NAME = "pyvirt"  # what our scripts are called in error messages

# Busybox's setpriv cannot change the user, but then its su is there.
_AS_USER = (
    'u=$1; shift; g=$(id -g -- "$u") || exit 126; '
    "if setpriv --help 2>&1 | grep -q -e --reuid; then "
    'exec setpriv --reuid="$u" --regid="$g" --init-groups --reset-env -- "$@"; fi; '
    'exec su -s /bin/sh "$u" -c \'exec "$@"\' pyvirt "$@"'
)
# Jobs of a shell have groups of their own, but stay in its session, the sixth word of its
# stat. The second is a name that may hold anything.
_KILL_SESSION = (
    "i=$2; for s in /proc/[0-9]*/stat; do { read -r l <$s; } 2>/dev/null || continue; "
    'set -- ${l##*") "}; [ "$4" = "$i" ] || continue; s=${s%/stat}; kill -KILL "${s##*/}"; '
    "done 2>/dev/null"
)
_IN_DIRECTORY = 'cd -- "$1" || exit 126; shift; exec "$@"'
_WRAPPERS = tuple(f"{name}: ".encode() for name in (NAME, "setsid", "env", "setpriv", "id"))


def argv(
    command: Words, env: Mapping[str, str] | None, cwd: str | None, user: str | None
) -> list[str]:
    """The words with which the guest runs `command`, in a session of its own."""
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    if env:
        words = ["env", *(f"{key}={value}" for key, value in env.items()), *words]
    if cwd is not None:
        words = ["/bin/sh", "-c", _IN_DIRECTORY, NAME, cwd, *words]
    if user is not None:
        words = ["/bin/sh", "-c", _AS_USER, NAME, user, *words]
    return ["setsid", *words]


def start(words: list[str], input: bytes | None = None, capture: bool = True) -> Flow[int]:
    """Start `words`; the guest's process id."""
    if input is not None and len(input) > INPUT:
        raise SpecError("input", f"takes at most {INPUT} bytes with {PEER}", len(input))
    arguments: dict[str, Any] = {"path": words[0], "arg": words[1:], "capture-output": capture}
    if input is not None:
        arguments["input-data"] = base64.b64encode(input).decode()
    answer = yield Command("guest-exec", arguments)
    return int(member(answer, "pid", int))


def until_exit(pid: int) -> Flow[dict[str, Any]]:
    """Look until process `pid` has ended: tightly at first, since most commands are short."""
    pause = FIRST
    while True:
        status = yield Command("guest-exec-status", {"pid": pid})
        if member(status, "exited", bool):
            return dict(status)
        yield Pause(pause)
        pause = min(pause * SLOWER, LONGEST)


def kill(pid: int, number: int) -> Flow[None]:
    """Send a signal to the session of `pid`, and wait until that is done."""
    script = 'kill -"$1" -- "-$2" 2>/dev/null || kill -"$1" "$2"'
    if number == 9:
        script += f"; {_KILL_SESSION}"
    killer = yield from start(["/bin/sh", "-c", script, NAME, str(number), str(pid)])
    yield from until_exit(killer)


@frozen
class Run:
    """One command to its end."""

    command: Words
    input: bytes | None
    env: Mapping[str, str] | None
    cwd: str | None
    user: str | None
    limit: int
    encoding: str | None

    def flow(self, clock: Callable[[], float]) -> Flow[Result[Any]]:
        """Run it. When its time is up (`TimedOut`) its whole session is killed."""
        begun = clock()
        pid = yield from start(argv(self.command, self.env, self.cwd, self.user), self.input)
        try:
            status = yield from until_exit(pid)
        except TimedOut as late:
            yield from kill(pid, 9)
            status = yield from until_exit(pid)
            kept = decoded(self._result(status, 0.0), self.encoding)
            raise RunTimedOut(self.name, late.seconds, kept.stdout, kept.stderr) from None
        except BaseException:  # cancelled: nobody wants it any more
            yield from kill(pid, 9)
            raise
        result = self._result(status, clock() - begun)
        _raise_if_not_started(self.name, result)
        return decoded(result, self.encoding)

    @property
    def name(self) -> str | tuple[str, ...]:
        """The command, as its result names it."""
        return self.command if isinstance(self.command, str) else tuple(self.command)

    def _result(self, status: Mapping[str, Any], duration: float) -> Result[bytes]:
        out, err = data_of(status, "out-data"), data_of(status, "err-data")
        cut = bool(status.get("out-truncated") or status.get("err-truncated"))
        return Result(
            self.name,
            status.get("exitcode"),
            status.get("signal"),
            out[: self.limit],
            err[: self.limit],
            duration,
            cut or max(len(out), len(err)) > self.limit,
        )


def _raise_if_not_started(command: str | tuple[str, ...], result: Result[bytes]) -> None:
    """`GuestError` where it was not the command that failed, but what should start it."""
    if result.exit_code not in (126, 127) or not result.stderr.startswith(_WRAPPERS):
        return
    said = result.stderr.decode("utf-8", "surrogateescape").strip()
    raise refused(command if isinstance(command, str) else command[0], said)


def script(words: list[str]) -> Flow[tuple[int, bytes, str]]:
    """Run one of our own scripts: exit code, output and error text."""
    status = yield from until_exit((yield from start(words)))
    error = data_of(status, "err-data").decode("utf-8", "surrogateescape").strip()
    return int(status.get("exitcode", -1)), data_of(status, "out-data"), error


def member(answer: Any, name: str, type_: type) -> Any:
    """A member that the agent's schema promises; the guest may send anything."""
    if not isinstance(answer, dict) or not isinstance(answer.get(name), type_):
        raise ProtocolError(PEER, f"sent an answer without a proper {name!r}", 0)
    return answer[name]


def data_of(answer: Any, name: str) -> bytes:
    """The bytes that a member holds in base64."""
    try:
        return base64.b64decode(answer.get(name, ""), validate=True)
    except (ValueError, TypeError, AttributeError) as fault:
        raise ProtocolError(PEER, f"sent {name!r} that is not base64", 0) from fault
