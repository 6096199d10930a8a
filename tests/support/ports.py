"""A guest without a guest: QEMU's qtest protocol reads and writes I/O ports by hand."""

from __future__ import annotations

import socket


class Ports:
    """The I/O ports of a machine, over one end of a socket pair; QEMU gets the other."""

    def __init__(self) -> None:
        self._socket, self._theirs = socket.socketpair()
        self._socket.settimeout(20)
        self._lines = self._socket.makefile("rb")
        self.fd = self._theirs.fileno()
        self.words = ("-chardev", f"socket,id=qtest,fd={self.fd}", "-qtest", "chardev:qtest")

    def write(self, port: int, value: int) -> None:
        """Write a byte."""
        self._ask(f"outb {port:#x} {value:#x}")

    def write_word(self, port: int, value: int) -> None:
        """Write two bytes."""
        self._ask(f"outw {port:#x} {value:#x}")

    def read(self, port: int) -> int:
        """Read a byte."""
        return int(self._ask(f"inb {port:#x}"), 16)

    def blob(self, key: int, size: int) -> bytes:
        """The first bytes of an item of fw_cfg."""
        self.write_word(0x510, key)
        return bytes(self.read(0x511) for _ in range(size))

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
        self._theirs.close()

    def _ask(self, line: str) -> str:
        self._socket.sendall(line.encode() + b"\n")
        while True:
            answer = self._lines.readline().decode().split()
            if answer[0] == "OK":
                return answer[1] if len(answer) > 1 else ""
            assert answer[0] == "IRQ", answer

    def __enter__(self) -> Ports:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
