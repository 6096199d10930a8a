"""Guests that run on this host: where ``pyvirt run`` lets others find its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
from attrs import frozen

from pyvirt.errors import PyvirtError

if TYPE_CHECKING:
    from pyvirt.running.attached import Attached
    from pyvirt.vm import VM

_SUFFIX = ".qmp"


@frozen
class Known:
    """A guest of ``pyvirt run``: its VM's name, the process that runs it, and its monitor."""

    name: str
    pid: int
    path: Path


def folder() -> Path:
    """Where monitors of this user's guests listen (XDG base directory specification)."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.access(runtime, os.W_OK):
        return Path(runtime) / "pyvirt"
    return Path("/tmp") / f"pyvirt-{os.getuid()}"


@contextmanager
def findable(vm: VM) -> Iterator[VM]:
    """The VM with one more monitor, at which ``pyvirt top`` and ``pyvirt trace`` find it."""
    where = folder()
    where.mkdir(mode=0o700, exist_ok=True)
    if not _own(where):
        yield vm
        return
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in vm.name)[:40]
    path = where / f"{name}.{os.getpid()}{_SUFFIX}"
    try:
        yield listening(vm, str(path))
    finally:
        path.unlink(missing_ok=True)


def listening(vm: VM, path: str) -> VM:
    """The VM with one more monitor, which listens at `path`."""
    where = path.replace(",", ",,")
    more = ("-qmp", f"unix:{where},server=on,wait=off")
    return attrs.evolve(vm, arguments=(*vm.arguments, *more))


def known() -> list[Known]:
    """The guests of ``pyvirt run`` that this user may look at."""
    found = []
    where = folder()
    paths = sorted(where.glob(f"*{_SUFFIX}")) if _own(where) else []
    for path in paths:
        name, _, pid = path.name.removesuffix(_SUFFIX).rpartition(".")
        if pid.isdigit() and Path(f"/proc/{pid}").exists():
            found.append(Known(name, int(pid), path))
        else:  # its process was killed
            path.unlink(missing_ok=True)
    return found


def attach(which: str) -> Attached:
    """The guest that is meant: the name of its VM, a pid, or the socket of its monitor."""
    from pyvirt.running.attached import Attached

    meant = [one for one in known() if which in (one.name, str(one.pid))]
    if not meant and which.isdigit():
        meant = [one for one in known() if _runs(one, int(which))]
    if len(meant) > 1:
        pids = ", ".join(str(one.pid) for one in meant)
        raise click.UsageError(f"Several guests are called {which!r}: name a pid of {pids}.")
    if meant:
        return Attached(str(meant[0].path))
    if not Path(which).exists():
        names = ", ".join(f"{one.name} ({one.pid})" for one in known()) or "none"
        raise click.UsageError(f"There is no guest {which!r}. Guests of pyvirt run: {names}.")
    return Attached(which.removeprefix("unix:"))


def everyone() -> list[Attached]:
    """All guests of ``pyvirt run`` that answer."""
    found = []
    for one in known():
        with suppress(PyvirtError, OSError):
            found.append(attach(str(one.pid)))
    return found


def _runs(one: Known, pid: int) -> bool:
    """Whether `pid` is the QEMU of a guest: a child of who runs it."""
    with suppress(OSError, ValueError, IndexError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(words[1]) == one.pid
    return False


def _own(where: Path) -> bool:
    """Whether nobody else could have put something there."""
    try:
        found = os.lstat(where)
    except OSError:
        return False
    mine = found.st_uid == os.getuid() and not found.st_mode & 0o077
    return stat.S_ISDIR(found.st_mode) and mine
