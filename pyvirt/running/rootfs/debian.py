"""Debian's root file systems, made by mmdebstrap with the mirrors of this host's apt."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyvirt.errors import ToolError, UnsupportedError
from pyvirt.rootfs import Debian
from pyvirt.rootfs.mirrors import sources
from pyvirt.running.rootfs.watch import Watch

_LISTS = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
#: What mmdebstrap says it is doing, in its order; the share of the work that is done then.
_STEPS = {
    "running apt-get update": 0.02,
    "downloading packages": 0.12,
    "extracting archives": 0.3,
    "installing essential packages": 0.4,
    "installing remaining packages": 0.75,
    "cleaning": 0.95,
}
_STEP = re.compile(rb"I: (.+?)\.\.\.")
_LOOK = 0.1  # seconds between two questions whether to go on
_LAST = 4000  # bytes of its last words that are kept


def fill(rootfs: Debian, root: Path, watch: Watch) -> None:
    """Make *rootfs* in the empty directory *root*."""
    if shutil.which("mmdebstrap") is None:
        raise UnsupportedError("mmdebstrap", "this host", "install the package mmdebstrap")
    watch.tell("running mmdebstrap", 0.0)
    with _mmdebstrap(_command(rootfs, root)) as process:
        said = _follow(process, watch)
    if process.returncode:
        words = [line for line in said.splitlines() if line.startswith(b"E: ")] or [said[-200:]]
        raise ToolError(
            "mmdebstrap", rootfs.suite, f"exit code {process.returncode}",
            b"; ".join(words).decode("utf-8", "replace"),
        )  # fmt: skip


def _command(rootfs: Debian, root: Path) -> list[str]:
    command = [
        "mmdebstrap", "--mode=root", "--format=directory", f"--variant={rootfs.variant}",
        f"--components={','.join(rootfs.components)}", "--skip=output/dev",
    ]  # fmt: skip
    if rootfs.packages:
        command.append(f"--include={','.join(rootfs.packages)}")
    if rootfs.architecture:
        command.append(f"--architectures={rootfs.architecture}")
    return [*command, rootfs.suite, str(root), *sources(_lists(), rootfs.suite, rootfs.components)]


def _lists() -> Iterator[tuple[str, str]]:
    """The names and texts of the files that say where apt of this host gets packages."""
    for place in _LISTS:
        for path in sorted(place.iterdir()) if place.is_dir() else [place]:
            if path.suffix in (".list", ".sources") and path.is_file():
                yield path.name, path.read_text("utf-8", "replace")


@contextmanager
def _mmdebstrap(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """It and what it starts, which end when this ends: a process group of their own."""
    with tempfile.TemporaryDirectory(prefix="pyvirt-mmdebstrap-") as place:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", "TMPDIR": place},
        )  # fmt: skip
        try:
            with process:
                yield process
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _follow(process: subprocess.Popen[bytes], watch: Watch) -> bytes:
    """Tell how far it is, until it ends; its last words."""
    ended = threading.Event()
    said = bytearray()
    state: list[tuple[str, float]] = [("running mmdebstrap", 0.0)]

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.extend(line)
            del said[:-_LAST]
            if (found := _STEP.match(line)) and (what := found[1].decode()) in _STEPS:
                state[:] = [(what, _STEPS[what])]
        ended.set()

    thread = threading.Thread(target=listen, name="pyvirt-mmdebstrap", daemon=True)
    thread.start()
    try:
        while not ended.wait(_LOOK):
            watch.tell(*state[0])
        process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        thread.join()
    return bytes(said)
