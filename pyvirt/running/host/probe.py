"""Asking a QEMU binary what it has: once, then the answer comes from the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

from pyvirt.errors import ClosedError, CommandError, StartError, TimedOut, UnsupportedError
from pyvirt.qemu.capabilities import FORM, Answers, Capabilities, learn
from pyvirt.qmp.schema import FORM as SCHEMA_FORM
from pyvirt.qmp.schema import Schema
from pyvirt.running.children.process import spawn
from pyvirt.running.host.cache import cache_directory, replace
from pyvirt.running.wire.monitor import Monitor

#: Seconds that a QEMU may take to answer; a loaded host is slow, not broken.
PATIENCE = 60.0

# -M none makes no board; where QEMU was built without TCG it goes on to the next.
_WORDS = (
    "-M", "none", "-nodefaults", "-no-user-config", "-S", "-display", "none",
    "-accel", "tcg", "-accel", "kvm",
)  # fmt: skip

# A folder of modules changes what QEMU has, with the binary staying the same.
_MODULES = ("/usr/lib/qemu", "/usr/lib64/qemu", "/usr/local/lib/qemu")

_known: dict[str, Capabilities] = {}


def probe(binary: str = "qemu-system-x86_64") -> Capabilities:
    """What `binary` has. It is started once per binary and cached by the file's identity.

    Raises `UnsupportedError` when there is no such program.
    """
    path = shutil.which(binary)
    if path is None:
        hint = "install qemu-system-x86, or name another with binary="
        raise UnsupportedError(f"the program {binary}", "this host", hint)
    key = _identity(os.path.realpath(path))
    found = _known.get(key)
    if found is None:
        found = _known[key] = _cached(path, key)
    return found


def _identity(path: str) -> str:
    """A word that changes when the binary, its modules, or the form of the cache do."""
    facts: list[object] = [FORM, SCHEMA_FORM, path]
    for name in (path, *_module_folders(path)):
        with suppress(OSError):
            status = os.stat(name)
            facts += [name, status.st_ino, status.st_size, status.st_mtime_ns]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _module_folders(path: str) -> Iterator[str]:
    yield from _MODULES
    yield os.environ.get("QEMU_MODULE_DIR", "")
    architecture = os.uname().machine
    for root in ("/usr", str(Path(path).parent.parent)):
        yield f"{root}/lib/{architecture}-linux-gnu/qemu"


def _cached(path: str, key: str) -> Capabilities:
    file = cache_directory() / "qemu" / key
    # A damaged file is as good as none.
    with suppress(OSError, msgspec.MsgspecError):
        return Capabilities.from_bytes(file.read_bytes())
    found = learn(ask(path))
    with suppress(OSError):  # Without a cache, each process asks anew.
        replace(file, found.to_bytes())
    return found


def ask(binary: str) -> Answers:
    """Start `binary` and ask it everything."""
    with _Session(binary) as qemu:
        types = qemu.types("device")
        return Answers(
            version=qemu.ask("query-version"),
            target=qemu.ask("query-target"),
            machines=qemu.ask("query-machines"),
            cpus=qemu.ask("query-cpu-definitions"),
            express=frozenset(qemu.types("pci-express-device")),
            conventional=frozenset(qemu.types("conventional-pci-device")),
            accelerators=qemu.ask("qom-list-types", implements="accel", abstract=False),
            tpms=qemu.maybe("query-tpm-types"),
            qdm=qemu.ask("human-monitor-command", **{"command-line": "info qdm"}),
            help={kind: _help(binary, kind) for kind in ("display", "audiodev")},
            schema=qemu.schema(),
            properties=dict(qemu.properties(types)),
        )


def _help(binary: str, kind: str) -> str:
    with spawn([binary, f"-{kind}", "help"]) as process:
        process.wait(PATIENCE)
        return process.last_words


class _Session:
    """A QEMU with no machine that answers, and is started again when a question kills it."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self._stack = ExitStack()
        self._start()

    def _start(self) -> None:
        self._stack.close()
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            monitor = ["-chardev", f"socket,id=probe,fd={fd}", "-mon", "probe,mode=control"]
            process = spawn([self._binary, *_WORDS, *monitor], pass_fds=[fd])
        self._stack.enter_context(process)

        def explain() -> str:
            return process.last_words or "it ended"

        try:
            self._monitor = Monitor.open(ours, timeout=PATIENCE, explain=explain, peer=self._binary)
        except (ClosedError, TimedOut) as error:
            self._stack.close()
            why = str(process.exit or "it does not speak QMP")
            raise StartError(self._binary, why, process.last_words) from error
        self._stack.enter_context(self._monitor)

    def ask(self, command: str, **arguments: Any) -> Any:
        return self._monitor.execute(command, arguments, timeout=PATIENCE)

    def maybe(self, command: str) -> Sequence[str]:
        """The answer to a command that not every QEMU has."""
        try:
            return self.ask(command)  # type: ignore[no-any-return]
        except CommandError:
            return ()

    def types(self, interface: str) -> list[str]:
        found = self.ask("qom-list-types", implements=interface, abstract=False)
        return [entry["name"] for entry in found]

    def schema(self) -> Schema:
        return Schema.decode(self._monitor.fetch("query-qmp-schema", timeout=PATIENCE))

    def properties(
        self, devices: Iterable[str]
    ) -> Iterator[tuple[str, Sequence[Mapping[str, Any]] | None]]:
        """The properties of each device; None for one that QEMU cannot even look at.

        7.2 ends with "missing object type" for devices whose module is not installed.
        """
        for name in devices:
            try:
                yield name, self.ask("device-list-properties", typename=name)
            except CommandError:
                yield name, None
            except ClosedError:
                self._start()

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
