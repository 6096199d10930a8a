"""A real QEMU for tests, and the plainest QMP client: an oracle independent of pyvirt's own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.render import argv

BINARY = "qemu-system-x86_64"
needs_qemu = pytest.mark.skipif(shutil.which(BINARY) is None, reason=f"{BINARY} is not installed")


class Refused(Exception):
    """QEMU answered a command with an error: `kind` and `desc` are its words."""

    def __init__(self, command: str, kind: str, desc: str) -> None:
        super().__init__(f"{command}: {desc} ({kind})")
        self.command, self.kind, self.desc = command, kind, desc


class Died(Exception):
    """QEMU ended; `words` is what it wrote on its standard error."""

    def __init__(self, words: str, status: int | None) -> None:
        super().__init__(f"QEMU ended with {status}: {words}")
        self.words, self.status = words, status


class Qemu:
    """A started QEMU; use it in a ``with``."""

    def __init__(self, words: list[str], pass_fds: tuple[int, ...], timeout: float) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(timeout)
        self.events: list[dict[str, Any]] = []
        self.words = words
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        fd = theirs.fileno()
        monitor = ["-chardev", f"socket,id=oracle,fd={fd}", "-mon", "chardev=oracle,mode=control"]
        with theirs:
            self.process = subprocess.Popen(
                [*_die_with_parent(), BINARY, *words, *monitor],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(fd, *pass_fds),
            )
        self._socket, self._lines = ours, ours.makefile("rb")
        try:
            self._receive()  # the greeting
            self.cmd("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def cmd(self, name: str, arguments: Mapping[str, Any] | None = None, /, **more: Any) -> Any:
        """The answer to a command; raises `Refused`. Events are kept in `events`."""
        request = {"execute": name, "arguments": {**(arguments or {}), **more}}
        try:
            self._socket.sendall(json.dumps(request).encode("utf-8", "surrogateescape"))
        except BrokenPipeError:
            raise self._death() from None
        while True:
            message = self._receive()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise Refused(name, message["error"]["class"], message["error"]["desc"])
            self.events.append(message)

    def getfd(self, name: str, fd: int) -> None:
        """Hand a descriptor over under `name`: it travels with the command."""
        request = {"execute": "getfd", "arguments": {"fdname": name}}
        socket.send_fds(self._socket, [json.dumps(request).encode()], [fd])
        while "return" not in self._receive():
            pass

    def hmp(self, line: str) -> str:
        """The text that the human monitor prints for `line`."""
        text: str = self.cmd("human-monitor-command", {"command-line": line})
        return text.replace("\r\n", "\n")

    def get(self, path: str, name: str) -> Any:
        """A property of an object; a bare id means ``/machine/peripheral/<id>``."""
        if not path.startswith("/"):
            path = f"/machine/peripheral/{path}"
        return self.cmd("qom-get", {"path": path, "property": name})

    def wait(self, event: str, **data: Any) -> dict[str, Any]:
        """The next event of that name whose data contains `data`; it is taken off `events`."""
        while True:
            for index, message in enumerate(self.events):
                found = message.get("data", {})
                if message["event"] == event and all(found.get(k) == v for k, v in data.items()):
                    return self.events.pop(index)
            self.events.append(self._receive())

    def stderr(self) -> str:
        """All that QEMU has written on its standard error."""
        self._stderr.seek(0)
        return self._stderr.read().decode("utf-8", "replace")

    def close(self) -> None:
        """End QEMU, if it has not ended."""
        self._lines.close()
        self._socket.close()
        self.process.kill()
        self.process.wait()
        self._stderr.close()

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except ConnectionResetError:
            line = b""
        if not line:
            raise self._death()
        message: dict[str, Any] = json.loads(line.decode("utf-8", "surrogateescape"))
        return message

    def _death(self) -> Died:
        return Died(self.stderr_after_end(), self.process.returncode)

    def stderr_after_end(self) -> str:
        """QEMU's last words; waits for its end."""
        self.process.wait(10)
        return self.stderr()

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def start(
    options: Iterable[Option | Need] = (),
    *words: str,
    machine: str | None = "q35",
    supplied: Mapping[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
    stopped: bool = True,
    timeout: float = 30,
) -> Qemu:
    """Start QEMU under TCG with `options`, rendered, and then `words` as they are.

    `supplied` gives the values of the `Late`s. `machine` is None when the options hold
    ``-machine`` themselves. Raises `Died` with QEMU's words when it refuses an option.
    """
    given = [option for option in options if isinstance(option, Option)]
    base = ["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"]
    base += ["-machine", machine] if machine is not None else []
    base += ["-S"] if stopped else []
    return Qemu([*base, *argv(given, supplied or {}), *words], pass_fds, timeout)


def _die_with_parent() -> list[str]:
    """Words that make the program after them end with the thread that started it."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
