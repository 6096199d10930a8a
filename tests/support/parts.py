"""Parts on a real QEMU: placed by the real topology, their needs met in the simplest way."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from support.qemu import Qemu, start

from pyvirt.machine.machine import Machine
from pyvirt.qemu import overlay
from pyvirt.qemu.composition import Composition, Placed
from pyvirt.qemu.need import (
    Companion,
    HostPath,
    InputPipe,
    Need,
    Socketpair,
    TemporaryFile,
    TemporaryOverlay,
    TemporaryPath,
)
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Part
from pyvirt.qemu.render import commands, resolve
from pyvirt.qemu.topology import Topology


def golden(part: Part, at: At | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Kind and properties of each option of a part, placed nowhere in particular."""
    at = At(f"{part.prefix}0") if at is None else at
    items = [item for item in part.options(at) if isinstance(item, Option)]
    return [(item.kind, resolve(item.properties, None)) for item in items]


def needs(part: Part) -> list[Need]:
    """What a part needs."""
    return [item for item in part.options(At(f"{part.prefix}0")) if isinstance(item, Need)]


class Lab:
    """A running QEMU with parts: cold ones from the start, others plugged by `plug`."""

    def __init__(self, machine: Machine, stack: ExitStack) -> None:
        self.composition = Composition(Topology(machine))
        self.supplied: dict[str, str] = {}
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.sockets: dict[str, socket.socket] = {}
        self.companions: dict[str, subprocess.Popen[bytes]] = {}
        self.fds: list[int] = []
        self.qemu: Qemu
        self._stack = stack
        self._running = False

    def place(self, *parts: Part) -> list[Placed]:
        """The parts with names and places, their needs met."""
        sources = ((part, f"parts[{number}]") for number, part in enumerate(parts))
        return [self._met(placed) for placed in self.composition.add_all(sources)]

    def _met(self, placed: Placed) -> Placed:
        for need in placed.needs:
            self._meet(need)
        return placed

    def plug(self, part: Part) -> str:
        """Plug a part into the running QEMU; its name."""
        placed = self._met(self.composition.plug(part, "part"))
        for command in commands([*placed.ports, *placed.options], self.supplied):
            self.qemu.cmd(command.name, command.arguments)
        return placed.name

    def started(self, qemu: Qemu) -> None:
        """QEMU runs and has its descriptors; later ones are handed over by name."""
        self.qemu, self._running = qemu, True
        self._close_fds()

    def _close_fds(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    def path(self, need: str) -> Path:
        """The path that was supplied for a need."""
        return Path(self.supplied[need])

    def _meet(self, need: Need) -> None:
        match need:
            case TemporaryFile():
                path = self.directory / need.name
                path.write_bytes(need.content)
                self.supplied[need.name] = str(path)
            case TemporaryPath():
                self.supplied[need.name] = str(self.directory / f"{need.name}{need.suffix}")
            case InputPipe():
                path = self.directory / need.name
                os.mkfifo(f"{path}.in")
                os.symlink(os.devnull, f"{path}.out")
                self.supplied[need.name] = str(path)
            case TemporaryOverlay():
                path = self.directory / f"{need.name}.qcow2"
                words = overlay.measure(need, self.supplied)
                printed = subprocess.run(words, check=True, capture_output=True).stdout
                size = overlay.virtual_size(printed)
                subprocess.run(overlay.create(str(path), size), check=True)
                self.supplied[need.name] = str(path)
            case Socketpair():
                ours, theirs = socket.socketpair()
                self.sockets[need.name] = self._stack.enter_context(ours)
                self.fds.append(theirs.detach())
                self.supplied[need.name] = str(self.fds[-1])
                if self._running:
                    self.qemu.getfd(need.name, self.fds[-1])
                    self.supplied[need.name] = need.name
                    self._close_fds()
            case Companion():
                self._accompany(need)
            case HostPath():
                self.supplied[need.name] = str(need.path)
            case _:
                raise AssertionError(f"no way to meet {need}")

    def _accompany(self, need: Companion) -> None:
        own = self.directory / need.name
        own.mkdir()
        words = [str(resolve(word, {"directory": str(own)})) for word in need.arguments]
        child = subprocess.Popen([need.program, *words], env={"PATH": PATH, **need.environment})
        self.companions[need.name] = child
        self._stack.callback(child.wait, 10)
        self._stack.callback(child.terminate)
        while not (own / need.socket).exists():
            assert child.poll() is None
        self.supplied[need.name] = str(own / need.socket)


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/qemu:/usr/libexec"


@contextmanager
def running(
    *parts: Part,
    machine: str | Machine = "q35",
    words: tuple[str, ...] = (),
    extra_fds: tuple[int, ...] = (),
    **more: Any,
) -> Iterator[Lab]:
    """A stopped QEMU that has `parts` from the start."""
    with ExitStack() as stack:
        board = Machine(machine) if isinstance(machine, str) else machine
        lab = Lab(board, stack)
        options = list(lab.composition.topology.spares())
        for placed in lab.place(*parts):
            options += [*placed.ports, *placed.options]
        fds = (*lab.fds, *extra_fds)
        qemu = start(
            options, *words, machine=board.type, supplied=lab.supplied, pass_fds=fds, **more
        )
        lab.started(stack.enter_context(qemu))
        yield lab


def expected(part: Part, name: str) -> Mapping[str, Any]:
    """The properties that the part gives its own device."""
    for kind, properties in golden(part, At(name)):
        if kind == "device" and properties["id"] == name:
            return {k: v for k, v in properties.items() if k not in {"driver", "id"}}
    raise AssertionError(f"{part} has no device")
