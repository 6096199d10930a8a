"""Debian's root file systems, made by mmdebstrap with the mirrors of this host's apt."""

from __future__ import annotations

import os
import re
import select
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pyvirt.errors import ToolError, UnsupportedError
from pyvirt.rootfs import Debian
from pyvirt.rootfs.mirrors import sources
from pyvirt.running.children.process import spawn
from pyvirt.running.rootfs.watch import Watch

_LISTS = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
#: What mmdebstrap says it is doing, in its order; the share of the work that is done then.
_STEPS = {
    "running apt-get update": 0.02,
    "downloading packages with apt": 0.12,
    "extracting archives": 0.3,
    "installing essential packages": 0.4,
    "installing remaining packages inside the chroot": 0.75,
    "cleaning package lists and apt cache": 0.95,
}
_STEP = re.compile(rb"I: (.+?)\.\.\.")
_LOOK = 0.1  # seconds between two questions whether to go on
_LAST = 4000  # bytes of its last words that are kept
# All that it starts and mounts is gone when it is gone, and it when pyvirt is gone.
_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


def fill(rootfs: Debian, root: Path, watch: Watch) -> None:
    """Make *rootfs* in the empty directory *root*."""
    if shutil.which("mmdebstrap") is None:
        raise UnsupportedError("mmdebstrap", "this host", "install the package mmdebstrap")
    watch.tell("running mmdebstrap", 0.0)
    said, end = _run([*_ALONE, *_command(rootfs, root)], watch)
    if end is not None:
        words = [line for line in said.splitlines() if line.startswith("E: ")] or [said[-200:]]
        raise ToolError("mmdebstrap", rootfs.suite, end, "; ".join(words))


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


def _run(command: list[str], watch: Watch) -> tuple[str, str | None]:
    """Its last words, and how it ended if not well. It is killed when it is given up."""
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory(prefix="pyvirt-mmdebstrap-") as place:
        env = {**os.environ, "LC_ALL": "C.UTF-8", "TMPDIR": place}
        try:
            try:
                process = spawn(command, stdout=writer, stderr=writer, env=env)
            finally:
                os.close(writer)
            with process:
                said = _follow(reader, watch)
                end = process.wait()
        finally:
            os.close(reader)
    return said, None if end.ok else str(end)


def _follow(reader: int, watch: Watch) -> str:
    """Tell how far it is, until it has nothing more to say; its last words."""
    said, begun = b"", b""
    what, done = "running mmdebstrap", 0.0
    while True:
        if select.select([reader], [], [], _LOOK)[0]:
            if not (data := os.read(reader, 65536)):
                return said.decode("utf-8", "replace")
            *lines, begun = (begun + data).split(b"\n")
            begun = begun[-_LAST:]
            said = (said + data)[-_LAST:]
            for step in (found[1].decode() for line in lines if (found := _STEP.match(line))):
                what, done = step, _STEPS.get(step, done)
        watch.tell(what, done)
