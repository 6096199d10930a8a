"""The last resort, against real shells and a real terminal of this host."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import subprocess
import termios
import threading
import time
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import GuestError, ProtocolError, RunTimedOut
from pyvirt.guest import login
from pyvirt.guest.login import Hear, Type
from pyvirt.running.agents.serial_shell import SerialShell

SOON = 60

# Any user may enter; the rest is a real shell on the real terminal.
GETTY = """
while :; do
  printf 'guest login: '; read user
  [ "$user" ] || continue
  printf 'Password: '; stty -echo; read word; stty echo; echo
  [ "$user:$word" = kim:secret ] && break
  echo 'Login incorrect'
done
exec {shell}
"""


class Terminal:
    """A console whose other end is a process on this host."""

    def __init__(self, words):
        self.fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            words,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.text, self.lock, self.waiting = "", threading.Lock(), None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def write(self, data):
        os.write(self.fd, data.encode())

    def expect(self, pattern):
        future = Future()
        with self.lock:
            self.waiting = (re.compile(pattern), future)
        self._look()
        return future

    def _read(self):
        try:
            while data := os.read(self.fd, 65536):
                with self.lock:
                    text = self.text + data.decode(errors="replace").replace("\r\n", "\n")
                    self.text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text)
                self._look()
        except OSError:
            return

    def _look(self):
        with self.lock:
            if self.waiting is None or not (match := self.waiting[0].search(self.text)):
                return
            future, self.text = self.waiting[1], self.text[match.end() :]
            self.waiting = None
        if not future.cancelled():
            future.set_result(match)

    def close(self):
        self.process.kill()
        self.process.wait(SOON)
        self.reader.join(SOON)
        os.close(self.fd)


SHELLS = ["dash -i", "bash --norc -i", "busybox sh -i"]


@pytest.fixture(params=SHELLS)
def terminal(request):
    if shutil.which(request.param.split()[0]) is None:
        pytest.skip(f"{request.param} is not installed")
    terminal = Terminal(["/bin/sh", "-c", GETTY.format(shell=request.param)])
    yield terminal
    terminal.close()


@pytest.fixture
def shell(terminal):
    shell = SerialShell(terminal)
    shell.login("kim", "secret", timeout=SOON).result(SOON)
    return shell


def test_commands_after_a_login(shell):
    result = shell.run("echo out; echo err >&2; exit 3").result(SOON)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert shell.run(["printf", "%s|", "a b", "$HOME", "'", "ü"]).result(SOON).stdout == (
        "a b|$HOME|'|ü|"
    )
    whole = bytes(range(256)) * 5
    assert shell.run("cat", input=whole, encoding=None).result(SOON).stdout == whole
    result = shell.run('echo "$X"; pwd', env={"X": "1 '\"\n2"}, cwd="/usr").result(SOON)
    assert result.stdout == "1 '\"\n2\n/usr\n"
    assert shell.run("kill -9 $$").result(SOON).signal == 9


def test_limit_and_time_limit(shell):
    result = shell.run("head -c 5000 /dev/zero", limit=1000).result(SOON)
    assert (len(result.stdout), result.cut) == (1000, True)
    with pytest.raises(RunTimedOut) as caught:
        shell.run("echo begun; sleep 1000 & sleep 1000", timeout=1).result(SOON)
    assert caught.value.stdout == "begun\n"
    assert shell.run("echo still here").result(SOON).stdout == "still here\n"


@pytest.mark.parametrize(
    ("password", "reason"),
    [("wrong", "the guest refused it"), (None, "the guest wants a password")],
)
def test_login_that_fails(terminal, password, reason):
    with pytest.raises(GuestError) as caught:
        SerialShell(terminal).login("kim", password, timeout=SOON).result(SOON)
    assert str(caught.value) == f"login as kim failed in the guest: {reason}"


@given(st.binary(max_size=3000))
def test_what_is_typed_is_what_printf_makes_of_it(content):
    pieces = list(login.typable(content))
    assert all(len(piece) <= 810 and piece.isascii() and "'" not in piece for piece in pieces)
    made = b"".join(
        bytes([int(one[1:], 8)]) if one[0] == "\\" else one.encode()
        for piece in pieces
        for one in re.findall(r"\\[0-7]{3}|[^\\]", piece)
    )
    assert made == content


def run_talk(talk, answers):
    """Step through `talk` with what a console says."""
    typed, step = [], next(talk)
    while True:
        try:
            if isinstance(step, Type):
                typed.append(step.text)
                step = talk.send(None)
            else:
                assert isinstance(step, Hear)
                match = re.search(step.pattern, answers.pop(0))
                assert match, step
                step = talk.send(match)
        except StopIteration as end:
            return typed, end.value


def test_kernel_messages_between_the_output_do_no_harm():
    said = "T 3\n 61 62\n[    1.5] usb 1-1: new device\n 63\nT 0\nT end 0\n"
    _, result = run_talk(login.Run(["x"], "T").talk(time.monotonic), ["T ok 0"] * 2 + [said])
    assert result.stdout == "abc"


def test_output_that_was_lost_is_not_taken_for_whole():
    said = "T 3\n 61 6[    1.5] usb 1-1: new device\n2 63\nT 0\nT end 0\n"
    with pytest.raises(ProtocolError) as caught:
        run_talk(login.Run(["x"], "T").talk(time.monotonic), ["T ok 0"] * 2 + [said])
    assert "garbled the output: 0 of 3 bytes came" in str(caught.value)
