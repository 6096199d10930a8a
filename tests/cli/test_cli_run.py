"""``pyvirt run`` with real guests: streams, exit codes, terminals, and ends that leave nothing."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest
from cli_tool import COMMAND, document, gone, guests, pyvirt
from support.qemu import needs_qemu

from pyvirt import VM, Guest
from pyvirt.running.guest import build

pytestmark = [needs_qemu, pytest.mark.timeout(240)]


def test_input_output_and_exit_code_are_those_of_the_command() -> None:
    data = bytes(range(256)) * 1000
    said = subprocess.run(
        [*COMMAND, "run", "--env", "WORD=a b", "--cwd", "/tmp",
         "cat; echo $WORD >&2; pwd >&2; exit 3"],
        input=data, capture_output=True, timeout=100,
    )  # fmt: skip
    assert (said.stdout, said.stderr, said.returncode) == (data, b"a b\n/tmp\n", 3)


def test_a_document_has_it_all(tmp_path: Path) -> None:
    path = tmp_path / "vm.toml"
    VM(name="described", accel="tcg", boot=Guest(files={"/opt/note": b"hello\n"})).save(path)
    command = "cat /opt/note; printf '\\377' >&2; kill -9 $$"
    made = document("run", "--json", "--vm", path, command, code=128 + 9)
    assert (made["stdout"], made["stderr"]) == ("hello\n", "\ufffd")
    assert base64.b64decode(made["stderr_base64"]) == b"\xff"
    assert "stdout_base64" not in made
    assert (made["exit_code"], made["signal"], made["cut"]) == (None, 9, False)
    assert made["accelerator"] == {"name": "tcg", "reason": "asked for"}
    assert made["duration"] < made["ready_after"]


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "\nInterrupted.\n"), (signal.SIGTERM, "")]
)
def test_an_interrupted_run_leaves_nothing(number: int, said: str, tmp_path: Path) -> None:
    name = f"interrupted-{number}-{os.getpid()}"
    words = ["run", "--name", name, "echo up; sleep 600"]
    with subprocess.Popen(
        [*COMMAND, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert len(guests(name)) == 1
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, said)
    assert gone(name)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_ends_the_run() -> None:
    line = f"{' '.join(COMMAND)} run yes | head -n 1; echo ${{PIPESTATUS[0]}}"
    said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=100)
    assert (said.stdout, said.stderr) == (f"y\n{128 + signal.SIGPIPE}\n", "")


def test_a_late_command_is_ended(tmp_path: Path) -> None:
    socket = tmp_path / "q.sock"
    with subprocess.Popen(
        [*COMMAND, "run", "--timeout", "5", "--qmp", socket, "sleep", "600"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        for _ in range(1000):
            if socket.exists():
                break
            time.sleep(0.02)
        status = json.loads(pyvirt("qmp", socket, "query-status").stdout)
        _, errors = process.communicate(timeout=100)
    assert status["status"] == "running"
    assert errors == "pyvirt: 'sleep 600' took longer than 5 s: it was killed\n"
    assert process.returncode == 1
    assert not socket.exists()


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.ours, theirs = pty.openpty()
        self.theirs = os.dup(theirs)
        self.before = termios.tcgetattr(self.theirs)
        self.process = subprocess.Popen(
            [*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def wait_for(self, text: str, patience: float = 100.0) -> None:
        limit = time.monotonic() + patience
        while text not in self.seen:
            assert time.monotonic() < limit, f"{text!r} is not in {self.seen!r}"
            if select.select([self.ours], [], [], 0.1)[0]:
                self.seen += os.read(self.ours, 4096).decode(errors="replace")
            else:
                assert self.process.poll() is None, f"{text!r} is not in {self.seen!r}"
        self.seen = self.seen.partition(text)[2]

    def end(self) -> tuple[int, bool]:
        """Its exit code, and whether it left the terminal as it was."""
        code = self.process.wait(60)
        after = termios.tcgetattr(self.theirs)
        os.close(self.ours)
        os.close(self.theirs)
        return code, after == self.before


def test_a_terminal_in_the_guest_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "note").write_text(str(tmp_path))  # no cache has a guest with this in it
    terminal = Terminal("run", "--console", "--file", f"/opt/note={tmp_path}/note")
    terminal.wait_for("building the initramfs ...")
    terminal.wait_for("waiting for vm to boot")
    terminal.wait_for("# ")
    terminal.type("echo $((6 * 7)) on $TERM; stty size\n")
    terminal.wait_for("42 on xterm")
    terminal.type("exit 5\n")
    assert terminal.end() == (5, True)


def test_without_the_default_guest_the_serial_port_is_the_terminal() -> None:
    made = build()
    append = "console=ttyS0 quiet rdinit=/bin/busybox -- sh"
    terminal = Terminal(
        "run", "--console", "--kernel", str(made.kernel), "--initrd", str(made.initramfs),
        "--append", append,
    )  # fmt: skip
    terminal.wait_for("Ctrl-] leaves")
    terminal.wait_for("/ # ")
    terminal.type("echo $((6 * 7)) times\n")
    terminal.wait_for("42 times")
    terminal.type("\x1d")
    assert terminal.end() == (0, True)


def test_a_start_that_fails_gives_the_terminal_back() -> None:
    terminal = Terminal("run", "--console", "--kernel", "/nothing")
    terminal.wait_for("could not open kernel file '/nothing'")
    assert terminal.end() == (1, True)


def test_progress_is_for_terminals_only() -> None:
    said = pyvirt("run", "true")
    assert (said.stdout, said.stderr, said.returncode) == ("", "", 0)
