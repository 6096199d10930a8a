"""Guests that run on this host: the one that is meant, or all that can be found."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyvirt.errors import PyvirtError
from pyvirt.running.rings.findable import Known, known

if TYPE_CHECKING:
    from pyvirt.running.rings.attached import Attached


def attach(which: str) -> Attached:
    """The guest that is meant: the name of its VM, a pid, or the socket of its monitor."""
    from pyvirt.running.rings.attached import Attached

    there = known()
    meant = [one for one in there if which in (one.name, str(one.pid))]
    if not meant and which.isdigit():
        meant = [one for one in there if _runs(one, int(which))]
    if len(meant) > 1:
        paths = ", ".join(str(one.path) for one in meant)
        raise click.UsageError(f"Several guests are meant by {which!r}: name a socket of {paths}.")
    if meant:
        return Attached(str(meant[0].path))
    if not Path(which).exists():
        names = ", ".join(f"{one.name} ({one.pid})" for one in there) or "none"
        raise click.UsageError(f"There is no guest {which!r}. Guests of pyvirt run: {names}.")
    return Attached(which.removeprefix("unix:"))


def everyone() -> list[Attached]:
    """All guests that can be found and answer."""
    from pyvirt.running.rings.attached import Attached

    found = []
    for one in known():
        with suppress(PyvirtError, OSError):
            found.append(Attached(str(one.path)))
    return found


def _runs(one: Known, pid: int) -> bool:
    """Whether `pid` is the QEMU of a guest: a child of who runs it."""
    with suppress(OSError, ValueError, IndexError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(words[1]) == one.pid
    return False
