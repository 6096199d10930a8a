"""What a carrier offers beyond `run`, made of nothing but a POSIX shell, without I/O.

A flow yields the `Script`s to run and gets their results. It asks of the guest what both
busybox and a Debian have: base64, dd, stat, tar, df.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeAlias, TypeVar

from attrs import frozen

from pyvirt.errors import ProtocolError, UnsupportedError
from pyvirt.guest.carrier import Filesystem, GuestInfo, Interface
from pyvirt.guest.facts import os_release
from pyvirt.guest.qga import refused
from pyvirt.guest.result import Result
from pyvirt.guest.scripts import AFTER_PUT, BEFORE_PUT, PACK, REFUSALS, UNPACK, listens

PEER = "a shell on the guest's console"

MOST = 1 << 20
"""Bytes of the largest file: a serial port brings tens of kilobytes a second."""

PIECE = 32 << 10
"""Bytes of a file that go at once."""

NAME = "pyvirt"  # what the scripts are called in error messages


@frozen
class Script:
    """Run `text` with /bin/sh and these words as its arguments. The result is a `Result`."""

    text: str
    words: tuple[str, ...] = ()
    input: bytes = b""

    @property
    def command(self) -> tuple[str, ...]:
        return ("/bin/sh", "-c", self.text, NAME, *self.words)


T = TypeVar("T")
Scripts: TypeAlias = Generator[Script, Result[bytes], T]
Count: TypeAlias = Callable[[int], None]

_BEGIN = ': >"$1"'
_APPEND = 'base64 -d >>"$1"'
_REMOVE = 'rm -f -- "$1"'
_READ = 'dd if="$1" bs="$2" skip="$3" count=1 2>/dev/null || exec cat -- "$1" >/dev/null'
_SIZE = 'stat -Lc %s -- "$1"'


# --- files ---


def put(parts: Iterable[bytes], path: str, mode: int, count: Count) -> Scripts[None]:
    """Write a file: whole under its name, or not at all; `count` hears of each piece."""
    data = _small(parts)
    where = yield Script(BEFORE_PUT, (path,))
    if not where.ok:
        raise refused(path, REFUSALS.get(where.exit_code or 0) or _said(where))
    kind, _, real = where.stdout.decode("utf-8", "surrogateescape").partition("\n")
    if kind == "d":
        yield from _append(data, real, count)
        return
    draft = f"{real}.pyvirt-part"
    try:
        yield from _done(path, Script(_BEGIN, (draft,)))
        yield from _append(data, draft, count)
        yield from _done(path, Script(AFTER_PUT, (draft, real, f"{mode:o}")))
    except BaseException:
        yield Script(_REMOVE, (draft,))
        raise


def _small(parts: Iterable[bytes]) -> bytes:
    """All of it, before anything is typed: refused when it is too much."""
    data = bytearray()
    for part in parts:
        data += part
        _bounded(len(data))
    return bytes(data)


def _append(data: bytes, path: str, count: Count) -> Scripts[None]:
    for at in range(0, len(data), PIECE):
        piece = data[at : at + PIECE]
        yield from _done(path, Script(_APPEND, (path,), base64.encodebytes(piece)))
        count(len(piece))


def get(path: str, take: Callable[[bytes], object]) -> Scripts[None]:
    """Read a file and give it to `take`, piece by piece."""
    size = yield from _done(path, Script(_SIZE, (path,)))
    _bounded(int(size.stdout or 0))
    number = 0
    while True:
        part = yield from _done(path, Script(_READ, (path, str(PIECE), str(number))))
        take(part.stdout)
        number += 1
        if len(part.stdout) < PIECE:  # a file of /proc has no size, but an end
            return
        _bounded(number * PIECE)


def put_tree(parts: Iterable[bytes], path: str, draft: str, count: Count) -> Scripts[None]:
    """Send an archive and unpack it into a directory with the guest's own tar."""
    data = _small(parts)
    try:
        yield from _done(draft, Script(_BEGIN, (draft,)))
        yield from _append(data, draft, count)
        yield from _done(path, Script(UNPACK, (draft, path)))
    finally:
        yield Script(_REMOVE, (draft,))


def get_tree(path: str, draft: str, take: Callable[[bytes], object]) -> Scripts[None]:
    """Pack a directory with the guest's own tar and read the archive."""
    try:
        yield from _done(path, Script(PACK, (draft, path)))
        yield from get(draft, take)
    finally:
        yield Script(_REMOVE, (draft,))


def _bounded(size: int) -> None:
    if size > MOST:
        hint = "give the guest an agent, a disk or a network"
        raise UnsupportedError(f"a file of more than {MOST >> 20} MiB", PEER, hint)


def _done(what: str, script: Script) -> Scripts[Result[bytes]]:
    """The result of a script that did what it should."""
    result = yield script
    if not result.ok:
        raise refused(what, _said(result).rpartition(": ")[2])
    return result


def _said(result: Result[bytes]) -> str:
    return result.stderr.decode("utf-8", "surrogateescape").strip() or result.end


# --- facts ---

# Facts, each behind a byte that none of them has.
_FACTS = (
    "uname -n; printf '\\0'; uname -r; printf '\\0'; uname -m; printf '\\0'; date +%s; "
    "printf '\\0'; cat /proc/uptime; printf '\\0'; cat /etc/os-release; printf '\\0'; "
    'for i in /sys/class/net/*; do echo "${i##*/} $(cat "$i/address")"; done; printf \'\\0\'; '
    "ip -o addr; printf '\\0'; cat /proc/mounts; printf '\\0'; df -kP; printf '\\0'"
)


def info() -> Scripts[GuestInfo]:
    """What the guest says of itself; users stay unknown."""
    said = yield Script(f"{{ {_FACTS}; }} 2>/dev/null")
    facts = [part.decode("utf-8", "replace") for part in said.stdout.split(b"\0")]
    if len(facts) != 11:
        raise ProtocolError(PEER, "sent facts that are not whole", len(said.stdout))
    return GuestInfo(
        hostname=facts[0].strip(),
        kernel=facts[1].strip(),
        machine=facts[2].strip(),
        os=os_release(facts[5]),
        interfaces=tuple(_interfaces(facts[6], facts[7])),
        filesystems=tuple(_filesystems(facts[8], facts[9])),
        uptime=_number(facts[4]),
        time=_number(facts[3]),
    )


def _number(text: str) -> float | None:
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return None


def _interfaces(links: str, addresses: str) -> Iterable[Interface]:
    """Lines of ``eth0 52:54:00:...`` and of ``2: eth0 inet 10.0.2.15/24 ...``."""
    lines = [line.split() for line in addresses.splitlines()]
    for name, _, mac in (line.partition(" ") for line in links.splitlines()):
        own = (line[3] for line in lines if len(line) > 3 and line[1].partition("@")[0] == name)
        yield Interface(name, mac, tuple(own))


def _filesystems(mounts: str, table: str) -> Iterable[Filesystem]:
    """/proc/mounts, and the blocks of df: ``/dev/vda 28000 24 25000 1% /mnt``."""
    sizes: dict[str, Any] = {}
    for words in (line.split(None, 5) for line in table.splitlines()[1:]):
        if len(words) == 6 and words[1].isdigit() and words[2].isdigit():
            sizes[words[5]] = (int(words[1]) << 10, int(words[2]) << 10)
    for line in (line.split() for line in mounts.splitlines()):
        if len(line) > 2 and line[0].startswith("/dev/"):
            where = line[1].encode().decode("unicode_escape")
            yield Filesystem(where, line[2], line[0], *sizes.get(where, (None, None)))


def listening(port: int, protocol: str) -> Scripts[bool]:
    """Whether something listens, from the guest's own table of sockets."""
    tables = yield Script('cat "/proc/net/$1" "/proc/net/$1"6 2>/dev/null', (protocol,))
    return listens(tables.stdout.decode("ascii", "replace"), port, protocol)
