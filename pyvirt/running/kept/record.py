"""What is written down about a kept container, beside its description."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TypeVar

import attrs
import msgspec
from attrs import frozen

from pyvirt.errors import UnsupportedError
from pyvirt.rootfs import IdMap, Made, Process
from pyvirt.running.kept.states import States
from pyvirt.running.rootfs import Prepared

T = TypeVar("T")

#: liblxc hands the paths of an overlay to mount(2) in one page, with a few words around.
_LONGEST = 3900


@frozen
class Tree:
    """A root file system: the `state` that holds it, and what makes it whole.

    An overlay is its state over `lowers`, the topmost first: paths, or names of states.
    """

    state: str
    lowers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    process: Process | None = None
    idmap: IdMap | None = None

    @classmethod
    def of(cls, prepared: Prepared, state: str, idmap: IdMap | None) -> Tree:
        """What was prepared in `state`."""
        kind, _, paths = prepared.source.partition(":")
        lowers = tuple(paths.split(":")[:-1]) if kind == "overlay" else ()
        return cls(state, lowers, prepared.options, prepared.process, idmap)

    @property
    def states(self) -> set[str]:
        """The states that must stay for it."""
        return {self.state, *(lower for lower in self.lowers if "/" not in lower)}

    def paths(self, states: States) -> list[Path]:
        """The directories that it is made of, the topmost first."""
        lowers = [Path(lower) if "/" in lower else states.root(lower) for lower in self.lowers]
        return [states.root(self.state), *lowers]

    def made(self, states: States) -> Made:
        """It, to be started."""
        upper, *lowers = map(str, self.paths(states))
        source = ":".join(["overlay", *lowers, upper]) if lowers else f"dir:{upper}"
        if len(source) > _LONGEST:
            hint = "clone it with overlay=False, which makes one tree of it"
            raise UnsupportedError(f"an overlay of {len(lowers)} layers", "liblxc", hint)
        return Made(source, self.options, self.process)


@frozen
class Snapshot:
    """A snapshot of a kept container: its name, and when it was taken (seconds since 1970)."""

    name: str
    taken: float
    tree: Tree = attrs.field(repr=False)


def read(path: Path, kind: type[T]) -> T:
    """What was written to *path*."""
    return msgspec.json.decode(path.read_bytes(), type=kind)


def write(path: Path, value: object) -> None:
    """Put *value* at *path*, so that others see the old one or the new one, whole."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(value if isinstance(value, bytes) else msgspec.json.encode(value))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
