"""The last resort: logging in on a serial console and running commands there, without I/O.

A talk is a generator that yields what to type and what to hear, and gets the match. It asks
little of the guest: a POSIX shell with mktemp, od, wc and head. Text that is typed is plain
ASCII in short lines, each acknowledged, because a terminal drops what nobody reads in time;
output comes back in hexadecimal with its length, because a terminal changes and mixes what
it shows.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import CancelledError
from typing import Any, TypeAlias, TypeVar

from attrs import frozen

from pyvirt.errors import GuestError, ProtocolError, RunTimedOut, TimedOut
from pyvirt.guest.carrier import Command
from pyvirt.guest.result import Result, decoded

LIMIT = 128 << 10
"""Bytes of each stream that `run` brings back: a serial port is slow."""

_LINE = 800  # characters typed at once; the kernel's terminal keeps 4095
_PEER = "the guest's console"


@frozen
class Type:
    """Type `text`. No result."""

    text: str


@frozen
class Hear:
    """Wait for `pattern` in what comes after the last match. The result is the match."""

    pattern: str


T = TypeVar("T")
Talk: TypeAlias = Generator[Type | Hear, Any, T]

_DOOR = (
    r"(?P<login>login: *\Z)|(?P<password>[Pp]assword: *\Z)"
    r"|(?P<refused>[Ll]ogin incorrect|[Aa]uthentication failure)|(?P<prompt>[#$%>] *\Z)"
)


def login(user: str, password: str | None, token: str) -> Talk[None]:
    """Get to a shell, past a login prompt if there is one, and make it quiet.

    `token` is a word that occurs nowhere else.
    """
    # A getty that has asked already asks again; a shell shows its prompt again. What is asked
    # or refused before we gave our name is about that empty line.
    yield Type("\n")
    named = False
    while (door := (yield Hear(_DOOR)).lastgroup) != "prompt":
        if door == "login" and not named:
            named = True
            yield Type(f"{user}\n")
        elif door == "password" and named and password is None:
            raise GuestError(f"login as {user}", "the guest wants a password")
        elif door == "password":
            yield Type(f"{password if named else ''}\n")
        elif door == "refused" and named:
            raise GuestError(f"login as {user}", "the guest refused it")
    yield Type(f"stty -echo; PS1=; PS2=; {_say(token, 'ready')}\n")
    yield Hear(f"{token} ready")


def _say(token: str, words: str) -> str:
    """A command that says `token` and `words`; its own echo must not look like its answer."""
    half = len(token) // 2
    return f"printf '%s%s {words}\\n' {token[:half]} {token[half:]}"


@frozen
class Run:
    """One command to its end, on a console where `login` has been."""

    command: Command
    token: str
    input: bytes = b""
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    user: str | None = None
    limit: int = LIMIT
    encoding: str | None = "utf-8"

    def talk(self, clock: Callable[[], float]) -> Talk[Result[Any]]:
        """Run it. At its time limit, or cancelled (thrown in), it is killed."""
        yield from self._line('d=$(mktemp -d) && : >"$d/c" && : >"$d/i"')
        yield from self._file("c", self._script())
        yield from self._file("i", self.input)
        begun = clock()
        try:
            # In one line: busybox's shell, without echo, takes the end of a child that comes
            # while it reads for the end of its input (fgets gives NULL, and errno is EINTR).
            start = 'sh "$d/c" <"$d/i" >"$d/o" 2>"$d/e" & p=$!; wait $p; r=$?'
            yield Type(f"{start}; {self._report()}\n")
            return decoded(self._result((yield Hear(self._told())), clock() - begun), self.encoding)
        except (TimedOut, CancelledError) as stop:
            # ^C ends the waiting; the command is a job of its own, which it does not reach.
            yield Type(f"\x03\nkill -KILL -$p || kill -KILL $p; wait $p; r=$?; {self._report()}\n")
            kept = self._result((yield Hear(self._told())), clock() - begun)
            if not isinstance(stop, TimedOut):
                raise
            partial = decoded(kept, self.encoding)
            raise RunTimedOut(self.name, stop.seconds, partial.stdout, partial.stderr) from None

    @property
    def name(self) -> str | tuple[str, ...]:
        """The command, as its result names it."""
        return self.command if isinstance(self.command, str) else tuple(self.command)

    def _script(self) -> bytes:
        words = (
            ["/bin/sh", "-c", self.command] if isinstance(self.command, str) else [*self.command]
        )
        lines = [f"export {key}={shlex.quote(value)}" for key, value in (self.env or {}).items()]
        lines += [f"cd {shlex.quote(self.cwd)} || exit 126"] if self.cwd is not None else []
        if self.user is not None:
            words = ["su", "-s", "/bin/sh", self.user, "-c", shlex.join(words)]
        lines.append(f"exec {shlex.join(words)}")
        return "\n".join(lines).encode("utf-8", "surrogateescape")

    def _line(self, line: str) -> Talk[None]:
        yield Type(f"{line}; {_say(self.token, 'ok %s')} $?\n")
        code = (yield Hear(rf"{self.token} ok (\d+)"))[1]
        if code != "0":
            raise GuestError("preparing a command", f"the shell said exit code {code}")

    def _file(self, name: str, content: bytes) -> Talk[None]:
        for piece in typable(content):
            yield from self._line(f"printf '{piece}' >>\"$d/{name}\"")

    def _report(self) -> str:
        one = (
            f'{_say(self.token, "%s")} "$(wc -c <"$d/$f")"; '
            f'head -c {self.limit} "$d/$f" | od -An -v -tx1'
        )
        return f'for f in o e; do {one}; done; {_say(self.token, "end %s")} $r; rm -rf "$d"'

    def _told(self) -> str:
        stream = rf"{self.token} +(\d+)\n(.*?)"
        return rf"(?s){stream}{stream}{self.token} end (\d+)"

    def _result(self, heard: re.Match[str], duration: float) -> Result[bytes]:
        sizes = int(heard[1]), int(heard[3])
        out, err = (
            _bytes(text, min(size, self.limit))
            for text, size in zip((heard[2], heard[4]), sizes, strict=True)
        )
        # A shell tells the signal n by the exit code 128 + n.
        code = int(heard[5])
        exit_code, signal = (None, code - 128) if code > 128 else (code, None)
        cut = max(sizes) > self.limit
        return Result(self.name, exit_code, signal, out, err, duration, cut)


def typable(content: bytes) -> Iterator[str]:
    """`content` as formats for printf, in pieces that a terminal takes as one line."""
    piece = ""
    for byte in content:
        char = chr(byte)
        safe = " " <= char <= "~" and char not in "'\\%!"
        piece += char if safe else f"\\{byte:03o}"
        if len(piece) >= _LINE:
            yield piece
            piece = ""
    if piece:
        yield piece


def _bytes(text: str, size: int) -> bytes:
    """The bytes that od showed; lines of others, such as the kernel's, lie between its own."""
    lines = [line for line in text.split("\n") if re.fullmatch(r"( [0-9a-f]{2})+ *\r?", line)]
    data = bytes.fromhex("".join(lines))
    if len(data) != size:
        raise ProtocolError(_PEER, f"garbled the output: {len(data)} of {size} bytes came", 0)
    return data
