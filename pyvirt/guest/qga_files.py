"""Files and trees through the QEMU guest agent, as flows."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

from pyvirt.errors import GuestError, ProtocolError
from pyvirt.guest.qga import PEER, refused
from pyvirt.guest.qga_flows import NAME, data_of, member, script
from pyvirt.guest.scripts import AFTER_PUT, BEFORE_PUT, PACK, REFUSALS, UNPACK
from pyvirt.qmp.flow import Command, Flow

PIECE = 256 << 10
"""Bytes of a file in one request: while it is served, nobody else is."""


def put(parts: Iterable[bytes], path: str, mode: int, count: Callable[[int], None]) -> Flow[None]:
    """Write a file: whole under its name, or not at all; `count` hears of each piece."""
    code, said, _ = yield from script(["/bin/sh", "-c", BEFORE_PUT, NAME, path])
    if code:
        raise refused(path, REFUSALS.get(code, "No such file or directory"))
    kind, _, real = said.decode("utf-8", "surrogateescape").partition("\n")
    if kind == "d":
        yield from write(parts, real, count)
        return
    draft = f"{real}.pyvirt-part"
    try:
        yield from write(parts, draft, count)
        words = ["/bin/sh", "-c", AFTER_PUT, NAME, draft, real, f"{mode:o}"]
        code, _, said_wrong = yield from script(words)
        if code:
            raise refused(path, said_wrong)
    except BaseException:
        yield from script(["rm", "-f", "--", draft])
        raise


def write(parts: Iterable[bytes], path: str, count: Callable[[int], None]) -> Flow[None]:
    """Write `parts` to a file as they come."""
    handle = yield from opened(path, "w")
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
    if member(answer, "count", int) != len(piece):
        raise GuestError(path, "it was not written whole")


def get(path: str, take: Callable[[bytes], object]) -> Flow[None]:
    """Read a file and give it to `take`, piece by piece."""
    handle = yield from opened(path, "r")
    try:
        ended = False
        while not ended:
            with _about(path):
                answer = yield Command("guest-file-read", {"handle": handle, "count": PIECE})
            take(data_of(answer, "buf-b64"))
            ended = bool(answer.get("eof")) or not answer.get("count")
    finally:
        yield Command("guest-file-close", {"handle": handle})


def opened(path: str, mode: str) -> Flow[int]:
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
    try:
        yield from write(parts, draft, count)
        code, _, said = yield from script(["/bin/sh", "-c", UNPACK, NAME, draft, path])
        if code:
            raise refused(path, said)
    finally:
        yield from script(["rm", "-f", "--", draft])


def get_tree(path: str, draft: str, take: Callable[[bytes], object]) -> Flow[None]:
    """Pack a directory with the guest's own tar and read the archive."""
    try:
        code, _, said = yield from script(["/bin/sh", "-c", PACK, NAME, draft, path])
        if code:
            raise refused(path, said)
        yield from get(draft, take)
    finally:
        yield from script(["rm", "-f", "--", draft])
