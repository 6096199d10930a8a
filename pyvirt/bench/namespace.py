"""A network namespace made for a run, which nothing of the host's network disturbs."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from typing import Self

from pyvirt.errors import ClosedError, UnsupportedError
from pyvirt.running.children.process import Process, spawn

#: Seconds that a namespace gets to make a tap.
PATIENCE = 30.0


class Namespace:
    """A namespace with taps. Without root it is made in a user namespace, where allowed.

    Use it in a ``with``; it ends with this process, however that ends.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(PATIENCE)
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        inside = [sys.executable, "-m", "pyvirt.bench.inside", str(theirs.fileno())]
        try:
            with theirs:
                words = [_tool("unshare"), *user, "--net", *inside]
                self._process: Process = spawn(words, pass_fds=[theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        self._socket = ours
        self._user = bool(user)

    def tap(self, queues: int = 1) -> tuple[str, list[int]]:
        """A new tap: its name, and a descriptor for each queue; it ends with the last of them."""
        try:
            self._socket.send(str(queues).encode())
            answer, fds, _flags, _from = socket.recv_fds(self._socket, 4096, 256)
        except OSError as error:
            raise ClosedError("the network namespace", self._words()) from error
        if not answer:
            raise ClosedError("the network namespace", self._words())
        if answer.startswith(b"!"):
            hint = "run as root, or allow user namespaces"
            raise UnsupportedError(f"a tap ({answer[1:].decode()})", "a namespace", hint)
        return answer.decode(), fds

    def words(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` in the namespace."""
        enter = [_tool("nsenter"), "--target", str(self._process.pid), "--net"]
        if self._user:
            enter += ["--user", "--preserve-credentials"]
        return [*enter, "--", *argv]

    def _words(self) -> str:
        return self._process.last_words or str(self._process.exit or "no answer")

    def close(self) -> None:
        self._socket.close()
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Namespace of process {self._process.pid}>"


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise UnsupportedError(name, "this host", "install the package util-linux")
    return path
