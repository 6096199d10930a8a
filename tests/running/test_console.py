"""The text of a captured port: kept within a limit, searched across pieces."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyvirt.errors import ClosedError
from pyvirt.running.console import Console, tidy


def console(tmp_path: Path, limit: int | None = None) -> Console:
    log = tmp_path / "log"
    log.write_bytes(b"")
    return Console("serial0", log, tmp_path / "socket", limit)


def say(port: Console, data: bytes) -> None:
    with port.log.open("ab") as log:
        log.write(data)


def test_text_has_no_control_sequences() -> None:
    assert tidy(b"\x1b[1;31mred\x1b[0m\r\nnext\xff") == "red\nnext\ufffd"


def test_a_pattern_is_found_across_pieces(tmp_path: Path) -> None:
    port = console(tmp_path)
    wait = port.expect(r"login: (\w+)")
    for piece in (b"lo\x1b[", b"0mgin: ", b"root\r", b"\n"):
        say(port, piece)
    assert wait.result(20).group(1) == "root"


def test_what_was_matched_is_not_matched_again(tmp_path: Path) -> None:
    port = console(tmp_path)
    say(port, b"one two one")
    assert port.expect("one").result(20).start() == 0
    assert port.expect("one").result(20).start() == 5
    third = port.expect("one")
    say(port, b" one")
    assert third.result(20).start() == 1


def test_only_the_newest_text_is_kept_when_there_is_a_limit(tmp_path: Path) -> None:
    port = console(tmp_path, limit=64 << 10)
    say(port, b"old\n" * (1 << 14) + b"new\n" * (1 << 14))
    port.trim()
    assert port.size == 8 << 14
    assert port.size - port.first == 32 << 10
    assert port.log.stat().st_blocks * 512 < port.size
    assert port.text == "new\n" * (1 << 13)
    say(port, b"newest")
    assert port.expect("newest").result(20)
    assert port.text.endswith("newest")


def test_without_a_limit_all_is_kept(tmp_path: Path) -> None:
    port = console(tmp_path)
    say(port, b"x" * (1 << 20))
    port.trim()
    assert (port.first, len(port.text)) == (0, 1 << 20)


def test_who_waits_from_many_threads_is_not_forgotten(tmp_path: Path) -> None:
    port = console(tmp_path)

    def wait(number: int) -> str:
        say(port, b"<%d>" % number)
        return port.expect(r"<\d+>").result(20)[0]

    with ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(wait, range(300)))
    assert sorted(heard) == sorted(f"<{n}>" for n in range(300))


def test_nobody_waits_for_a_console_that_ended(tmp_path: Path) -> None:
    port = console(tmp_path)
    before = port.expect("never")
    say(port, b"last words")
    port.close(ClosedError("vm", "killed"))
    assert port.expect("last").result(20)
    for wait in (before, port.expect("never")):
        with pytest.raises(ClosedError):
            wait.result(20)
    with pytest.raises(ClosedError):
        port.write("x")


def test_typing_waits_while_the_guest_does_not_read(tmp_path: Path) -> None:
    port = console(tmp_path)
    os.mkfifo(tmp_path / "socket")
    reader = os.open(tmp_path / "socket", os.O_RDONLY | os.O_NONBLOCK)
    data = b"0123456789abcdef" * (16 << 10)
    thread = threading.Thread(target=port.write, args=(data,))
    thread.start()
    got = bytearray()
    while len(got) < len(data):
        try:
            got += os.read(reader, 1 << 14)
        except BlockingIOError:
            continue
    thread.join(20)
    os.close(reader)
    assert got == data
    with pytest.raises(ClosedError, match="reads it no longer"):
        port.write("x")
