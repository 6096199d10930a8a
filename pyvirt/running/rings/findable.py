"""Guests that others find: sockets at which their monitors listen, in this user's folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from attrs import frozen

if TYPE_CHECKING:
    from pyvirt.vm import VM

_SUFFIX = ".qmp"
_numbers = count()


@frozen
class Known:
    """A guest that can be found: its VM's name, the process that runs it, and its monitor."""

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
    """The VM with one more monitor, at which ``pyvirt top`` and ``pyvirt trace`` find it.

        with findable(VM(name="web")) as vm, vm.start() as running:
            ...

    Only this user's processes reach it. Without a folder of this user's own, it is `vm` as it is.
    """
    where = folder()
    where.mkdir(mode=0o700, exist_ok=True)
    if not _own(where):
        yield vm
        return
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in vm.name)[:40]
    path = where / f"{name}.{os.getpid()}.{next(_numbers)}{_SUFFIX}"
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
    """The guests that this user may look at."""
    found = []
    where = folder()
    paths = sorted(where.glob(f"*{_SUFFIX}")) if _own(where) else []
    for path in paths:
        name, pid, *_ = path.name.split(".")
        if Path(f"/proc/{pid}").exists():
            found.append(Known(name, int(pid), path))
        else:  # its process was killed
            path.unlink(missing_ok=True)
    return found


def _own(where: Path) -> bool:
    """Whether nobody else could have put something there."""
    try:
        found = os.lstat(where)
    except OSError:
        return False
    mine = found.st_uid == os.getuid() and not found.st_mode & 0o077
    return stat.S_ISDIR(found.st_mode) and mine
