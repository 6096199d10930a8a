"""From nothing to the first answer of a guest: pyvirt against QEMU started by hand.

    python -m benchmarks.bench_start [--rounds N]

Both boot the same kernel, initramfs and kernel command line, and both run `true` in the guest
through the same agent. By hand is what somebody would write who knows how: the fewest options
that boot, a process, a socket, and as much of the agent's protocol as one command needs.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.pairs import Pairs, Row, Timed, alternate, below, table, told
from pyvirt import VM

LIMIT = 60.0  # seconds that a boot may take at all
MEMORY = "512M"

# The agent's protocol: see csrc/pv_frame.h.
PREAMBLE = b"\xffpyvirt agent\r\n\0"
HELLO, EXEC, EXITED, END = 1, 4, 15, 16
VERSION, NONCE, WINDOW, SHELL, NO_INPUT, EXIT_CODE = 1, 2, 3, 5, 11, 18


def by_pyvirt(vm: VM) -> Timed:
    """Start, run, and after the clock has stopped, end."""
    begun = time.perf_counter()
    with vm.start() as running:
        code = running.run("true").exit_code
        return Timed(time.perf_counter() - begun, code)


def by_hand(words: list[str], folder: str) -> Timed:
    """The same with nothing but the standard library."""
    begun = time.perf_counter()
    ours, theirs = socket.socketpair()
    ours.settimeout(LIMIT)
    command = [*words, "-chardev", f"socket,id=agent,fd={theirs.fileno()}"]
    command += ["-device", "virtserialport,chardev=agent,name=org.pyvirt.agent.0"]
    command += ["-serial", f"file:{folder}/serial"]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        code = first_answer(ours)
        took = time.perf_counter() - begun
        process.kill()
    return Timed(took, code)


def first_answer(agent: socket.socket) -> int:
    """The exit code of `true` in the guest."""
    nonce = os.urandom(8)
    hello = number(VERSION, 1) + field(NONCE, nonce) + number(WINDOW, 1 << 20)
    agent.sendall(PREAMBLE + frame(HELLO, 0, hello))
    data = b""
    while nonce not in data:
        data += receive(agent)
    agent.sendall(frame(EXEC, 1, field(SHELL, b"true") + field(NO_INPUT, b"")))
    ended, code = frame(END, 1, b""), number(EXIT_CODE, 0)
    while ended not in data:
        data += receive(agent)
    assert code in data, "true did not end with exit code 0"
    return 0


def receive(agent: socket.socket) -> bytes:
    data = agent.recv(65536)
    assert data, "QEMU ended"
    return data


def frame(kind: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("<IIBBH", len(payload), stream, kind, 0, 0) + payload


def field(tag: int, data: bytes) -> bytes:
    return struct.pack("<I", tag | len(data) << 8) + data


def number(tag: int, value: int) -> bytes:
    return field(tag, struct.pack("<Q", value))


def hand_made(supplied: Mapping[str, str]) -> list[str]:
    """The fewest options that boot this kernel to its agent."""
    return [
        *("qemu-system-x86_64", "-nodefaults", "-machine", "q35", "-accel", "tcg", "-m", MEMORY),
        *("-kernel", supplied["guest.kernel"], "-initrd", supplied["guest.initramfs"]),
        *("-append", supplied["guest.append"], "-display", "none"),
        *("-device", "virtio-serial-pci"),
    ]


def figures(pairs: Pairs, side: str, what: str) -> Iterator[Row]:
    times = sorted(pairs.seconds[side])
    yield told(what, f"{pairs.median(side):.3f} s ({times[0]:.3f}-{times[-1]:.3f})")


def rows(rounds: int) -> Iterator[Row]:
    """What a start costs beyond QEMU's and the guest's own time."""
    vm = VM(accel="tcg", memory=MEMORY)
    with vm.start() as running:  # builds the guest and probes QEMU, when that is still to do
        running.run("true", check=True)
        words = hand_made(running._engine.supplied)
    with tempfile.TemporaryDirectory() as folder:
        sides = {"pyvirt": lambda: by_pyvirt(vm), "hand": lambda: by_hand(words, folder)}
        pairs = alternate(sides, rounds)
        assert Path(folder, "serial").exists()
    yield from figures(pairs, "pyvirt", "start() to the first result")
    yield from figures(pairs, "hand", "  by hand")
    yield below("  pyvirt, to by hand", pairs.ratio("pyvirt", "hand"), 1.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    print(table("Start", rows(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
