"""Conversations with the QEMU guest agent: commands, files and facts, as flows.

A flow yields `Command` and `Pause` steps; a refused command is thrown in as `GuestError`,
the end of its time as `TimedOut`. The agent serves one request after another, keeps at most
16 MiB of each output stream, and knows no process groups: `setsid` makes them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from attrs import frozen

from pyvirt.errors import GuestError, ProtocolError, RunTimedOut, SpecError, TimedOut
from pyvirt.guest.carrier import Command as Words
from pyvirt.guest.carrier import Filesystem, GuestInfo, Interface, User
from pyvirt.guest.qga import PEER, refused
from pyvirt.guest.result import Result, decoded
from pyvirt.qmp.flow import Command, Flow, Pause

INPUT = 32 << 20
"""Bytes of input in one request: the agent's JSON parser takes tokens of at most 64 MiB."""

PIECE = 256 << 10
"""Bytes of a file in one request: while it is served, nobody else is."""

_FIRST, _SLOWER, _LONGEST = 0.0005, 1.15, 0.1  # seconds between looks, and how they grow
_NAME = "pyvirt"  # what our scripts are called in error messages

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
_WRAPPERS = tuple(f"{name}: ".encode() for name in (_NAME, "setsid", "env", "setpriv", "id"))

# Where the new file goes: behind symbolic links, which stay. Busybox's `readlink -f` is wrong
# where the last one dangles, so they are followed here. Devices are written to, not replaced.
# 21: EISDIR, 2: ENOENT, 40: ELOOP.
_BEFORE_PUT = (
    '[ -d "$1" ] && exit 21; p=$1; n=0; case $p in /*) ;; *) p=./$p ;; esac; '
    'while [ -L "$p" ]; do n=$((n+1)); [ $n -le 40 ] || exit 40; '
    'l=$(readlink -n -- "$p"; echo x); l=${l%x}; '
    'case $l in /*) p=$l ;; *) p=${p%/*}/$l ;; esac; done; '
    '[ -d "${p%/*}/" ] || exit 2; '
    'if [ -e "$p" ] && ! [ -f "$p" ]; then echo d; else echo f; fi; printf %s "$p"'
)
_REFUSALS = {21: "Is a directory", 40: "Too many levels of symbolic links"}
_AFTER_PUT = (
    'if [ -e "$2" ]; then chown -- "$(stat -c %u:%g -- "$2")" "$1" || exit; fi; '
    'chmod -- "$3" "$1" && mv -fT -- "$1" "$2"'
)


# --- commands ---


def argv(
    command: Words, env: Mapping[str, str] | None, cwd: str | None, user: str | None
) -> list[str]:
    """The words with which the guest runs `command`, in a session of its own."""
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    if env:
        words = ["env", *(f"{key}={value}" for key, value in env.items()), *words]
    if cwd is not None:
        words = ["/bin/sh", "-c", _IN_DIRECTORY, _NAME, cwd, *words]
    if user is not None:
        words = ["/bin/sh", "-c", _AS_USER, _NAME, user, *words]
    return ["setsid", *words]


def start(words: list[str], input: bytes | None = None, capture: bool = True) -> Flow[int]:
    """Start `words`; the guest's process id."""
    if input is not None and len(input) > INPUT:
        raise SpecError("input", f"takes at most {INPUT} bytes with {PEER}", len(input))
    arguments: dict[str, Any] = {"path": words[0], "arg": words[1:], "capture-output": capture}
    if input is not None:
        arguments["input-data"] = base64.b64encode(input).decode()
    answer = yield Command("guest-exec", arguments)
    return int(_member(answer, "pid", int))


def until_exit(pid: int) -> Flow[dict[str, Any]]:
    """Look until process `pid` has ended: tightly at first, since most commands are short."""
    pause = _FIRST
    while True:
        status = yield Command("guest-exec-status", {"pid": pid})
        if _member(status, "exited", bool):
            return dict(status)
        yield Pause(pause)
        pause = min(pause * _SLOWER, _LONGEST)


def kill(pid: int, number: int) -> Flow[None]:
    """Send a signal to the session of `pid`, and wait until that is done."""
    script = 'kill -"$1" -- "-$2" 2>/dev/null || kill -"$1" "$2"'
    if number == 9:
        script += f"; {_KILL_SESSION}"
    killer = yield from start(["/bin/sh", "-c", script, _NAME, str(number), str(pid)])
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
        out, err = _data(status, "out-data"), _data(status, "err-data")
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
    error = _data(status, "err-data").decode("utf-8", "surrogateescape").strip()
    return int(status.get("exitcode", -1)), _data(status, "out-data"), error


# --- files ---


def put(parts: Iterable[bytes], path: str, mode: int, count: Callable[[int], None]) -> Flow[None]:
    """Write a file: whole under its name, or not at all; `count` hears of each piece."""
    code, said, _ = yield from script(["/bin/sh", "-c", _BEFORE_PUT, _NAME, path])
    if code:
        raise refused(path, _REFUSALS.get(code, "No such file or directory"))
    kind, _, real = said.decode("utf-8", "surrogateescape").partition("\n")
    if kind == "d":
        yield from write(parts, real, count)
        return
    draft = f"{real}.pyvirt-part"
    try:
        yield from write(parts, draft, count)
        words = ["/bin/sh", "-c", _AFTER_PUT, _NAME, draft, real, f"{mode:o}"]
        code, _, said_wrong = yield from script(words)
        if code:
            raise refused(path, said_wrong)
    except BaseException:
        yield from script(["rm", "-f", "--", draft])
        raise


def write(parts: Iterable[bytes], path: str, count: Callable[[int], None]) -> Flow[None]:
    """Write `parts` to a file as they come."""
    handle = yield from _open(path, "w")
    try:
        for part in parts:
            for at in range(0, len(part), PIECE):
                yield from _write_piece(handle, path, part[at : at + PIECE])
                count(len(part[at : at + PIECE]))
    finally:
        yield Command("guest-file-close", {"handle": handle})


def _write_piece(handle: int, path: str, piece: bytes) -> Flow[None]:
    data = base64.b64encode(piece).decode()
    answer = yield Command("guest-file-write", {"handle": handle, "buf-b64": data})
    if _member(answer, "count", int) != len(piece):
        raise GuestError(path, "it was not written whole")


def get(path: str, take: Callable[[bytes], object]) -> Flow[None]:
    """Read a file and give it to `take`, piece by piece."""
    handle = yield from _open(path, "r")
    try:
        ended = False
        while not ended:
            with _about(path):
                answer = yield Command("guest-file-read", {"handle": handle, "count": PIECE})
            take(_data(answer, "buf-b64"))
            ended = bool(answer.get("eof")) or not answer.get("count")
    finally:
        yield Command("guest-file-close", {"handle": handle})


def _open(path: str, mode: str) -> Flow[int]:
    with _about(path):
        handle = yield Command("guest-file-open", {"path": path, "mode": mode})
    if not isinstance(handle, int):
        raise ProtocolError(PEER, "sent a handle that is none", 0)
    return handle


class _about:
    """Says which file a refused request was about, in the words of every carrier."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, GuestError):
            raise refused(self._path, error.reason.rpartition(": ")[2]) from None


def whole(path: str) -> Flow[bytes]:
    """A small file of the guest."""
    parts: list[bytes] = []
    yield from get(path, parts.append)
    return b"".join(parts)


def put_tree(
    parts: Iterable[bytes], path: str, draft: str, count: Callable[[int], None]
) -> Flow[None]:
    """Send an archive and unpack it into a directory with the guest's own tar."""
    unpack = 'mkdir -p -- "$2" && tar -xf "$1" -C "$2"'
    try:
        yield from write(parts, draft, count)
        code, _, said = yield from script(["/bin/sh", "-c", unpack, _NAME, draft, path])
        if code:
            raise refused(path, said)
    finally:
        yield from script(["rm", "-f", "--", draft])


def get_tree(path: str, draft: str, take: Callable[[bytes], object]) -> Flow[None]:
    """Pack a directory with the guest's own tar and read the archive."""
    # An archive inside of what it holds is left out by every tar.
    pack = 'cd -- "$2" && tar -cf "$1" .'
    try:
        code, _, said = yield from script(["/bin/sh", "-c", pack, _NAME, draft, path])
        if code:
            raise refused(path, said)
        yield from get(draft, take)
    finally:
        yield from script(["rm", "-f", "--", draft])


# --- facts ---


def listening(port: int, protocol: str) -> Flow[bool]:
    """Whether something listens, from the guest's own table of sockets."""
    state = "0A" if protocol == "tcp" else "07"  # TCP_LISTEN, TCP_CLOSE: unconnected
    for suffix in ("", "6"):
        with suppress(GuestError):  # a guest without IPv6
            table = yield from whole(f"/proc/net/{protocol}{suffix}")
            for line in table.decode("ascii", "replace").splitlines()[1:]:
                words = line.split()
                if words[1:] and words[1].endswith(f":{port:04X}") and words[3] == state:
                    return True
    return False


def info() -> Flow[GuestInfo]:
    """What the guest says of itself; what this agent cannot tell stays empty."""
    system = yield from _optional("guest-get-osinfo", {})
    host = yield from _optional("guest-get-host-name", {})
    now = yield from _optional("guest-get-time", None)
    uptime = None
    with suppress(GuestError, ValueError, IndexError):
        uptime = float((yield from whole("/proc/uptime")).split()[0])
    return GuestInfo(
        hostname=str(host.get("host-name", "")),
        kernel=str(system.get("kernel-release", "")),
        machine=str(system.get("machine", "")),
        os={name: str(system[key]) for key, name in _OS_RELEASE.items() if key in system},
        interfaces=_interfaces((yield from _optional("guest-network-get-interfaces", []))),
        filesystems=_filesystems((yield from _optional("guest-get-fsinfo", []))),
        users=_users((yield from _optional("guest-get-users", []))),
        uptime=uptime,
        time=now / 1e9 if isinstance(now, int) else None,
    )


_OS_RELEASE = {
    "id": "ID",
    "name": "NAME",
    "pretty-name": "PRETTY_NAME",
    "version": "VERSION",
    "version-id": "VERSION_ID",
    "variant": "VARIANT",
    "variant-id": "VARIANT_ID",
}


def _optional(name: str, otherwise: Any) -> Flow[Any]:
    try:
        return (yield Command(name))
    except GuestError:
        return otherwise


def _interfaces(found: list[dict[str, Any]]) -> tuple[Interface, ...]:
    return tuple(
        Interface(
            str(one.get("name", "")),
            str(one.get("hardware-address", "")),
            tuple(
                f"{address.get('ip-address')}/{address.get('prefix')}"
                for address in one.get("ip-addresses", ())
            ),
        )
        for one in found
    )


def _filesystems(found: list[dict[str, Any]]) -> tuple[Filesystem, ...]:
    return tuple(
        Filesystem(
            str(one.get("mountpoint", "")),
            str(one.get("type", "")),
            f"/dev/{one.get('name', '')}",  # its kernel name: this agent tells of disks only
            one.get("total-bytes"),
            one.get("used-bytes"),
        )
        for one in found
    )


def _users(found: list[dict[str, Any]]) -> tuple[User, ...]:
    return tuple(User(str(one.get("user", "")), float(one.get("login-time", 0.0))) for one in found)


def _member(answer: Any, name: str, type_: type) -> Any:
    """A member that the agent's schema promises; the guest may send anything."""
    if not isinstance(answer, dict) or not isinstance(answer.get(name), type_):
        raise ProtocolError(PEER, f"sent an answer without a proper {name!r}", 0)
    return answer[name]


def _data(answer: Any, name: str) -> bytes:
    try:
        return base64.b64decode(answer.get(name, ""), validate=True)
    except (ValueError, TypeError, AttributeError) as fault:
        raise ProtocolError(PEER, f"sent {name!r} that is not base64", 0) from fault


# --- live commands: output in files that are read as they grow, input through a pipe ---

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
        launch = [words[0], "/bin/sh", "-c", _LAUNCH, _NAME, directory, *words[1:]]
        pid = yield from start(launch, capture=False)
        hold = ["/bin/sh", "-c", _HOLD, _NAME, directory]
        holder = yield from start(hold, capture=False)
        out = yield from _open(f"{directory}/out", "r")
        err = yield from _open(f"{directory}/err", "r")
    except BaseException:
        yield from script(["/bin/sh", "-c", _REMOVE, _NAME, directory])
        raise
    return Spawned(pid, directory, holder, {1: out, 2: err})


def follow(
    live: Spawned, room: Callable[[int], int], feed: Callable[[int, bytes], None]
) -> Flow[dict[str, Any]]:
    """Give `feed` what the command writes, as far as there is `room`, until its end."""
    pause, status = _FIRST, {"exited": False}
    while True:
        if not status["exited"]:  # the agent tells of an end only once
            status = yield Command("guest-exec-status", {"pid": live.pid})
        ended, moved = _member(status, "exited", bool), 0
        for channel in live.outputs:
            moved += yield from _pour(live, channel, room, feed)
        if ended and not moved and all(room(channel) > 0 for channel in live.outputs):
            return dict(status)
        pause = _FIRST if moved else min(pause * _SLOWER, _LONGEST)
        yield Pause(pause)


def _pour(
    live: Spawned, channel: int, room: Callable[[int], int], feed: Callable[[int, bytes], None]
) -> Flow[int]:
    count = min(room(channel), PIECE)
    if count <= 0:
        return 0
    request = {"handle": live.outputs[channel], "count": count}
    data = _data((yield Command("guest-file-read", request)), "buf-b64")
    if data:
        feed(channel, data)
    return len(data)


def feed(live: Spawned, data: bytes) -> Flow[None]:
    """Write `data` to the command's input; done when it is in the pipe."""
    words = ["/bin/sh", "-c", _FEED, _NAME, live.directory]
    for at in range(0, len(data), PIECE):
        yield from until_exit((yield from start(words, data[at : at + PIECE])))


def end_input(live: Spawned) -> Flow[None]:
    """Nothing follows on its input."""
    yield from script(["/bin/sh", "-c", 'kill "$1"', _NAME, str(live.holder)])


def remove(live: Spawned) -> Flow[None]:
    """Forget a command that has ended, and leave nothing of it in the guest."""
    for handle in live.outputs.values():
        yield Command("guest-file-close", {"handle": handle})
    yield from end_input(live)
    yield from script(["/bin/sh", "-c", _REMOVE, _NAME, live.directory])
