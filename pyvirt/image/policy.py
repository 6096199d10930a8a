"""Which other files an image may make us open: none, unless the caller allows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pyvirt.errors import PolicyError
from pyvirt.image.layer import Reference
from pyvirt.image.source import FileSource, Source

#: False: nothing. True: whatever the images name. A directory: what lies beneath it. A list:
#: these files. A callable: asked for each reference, gives a source, a path or None.
Trust = (
    bool
    | str
    | os.PathLike[str]
    | Sequence[str | os.PathLike[str]]
    | Callable[[Reference, tuple[str, ...]], Any]
)


class Policy(Protocol):
    """Opens what an image names; `trail` are the names of the images that led there."""

    def open(self, reference: Reference, trail: tuple[str, ...]) -> Source: ...


class Nothing:
    """Opens no other file."""

    def open(self, reference: Reference, trail: tuple[str, ...]) -> Source:
        raise PolicyError(reference.name, "trust=False opens no other file", trail)


class Everything:
    """Opens what the images name, relative to the one that names it."""

    def open(self, reference: Reference, trail: tuple[str, ...]) -> Source:
        name = reference.name.removeprefix("file:")
        if "://" in name or name.startswith("json:"):
            raise PolicyError(reference.name, "only files of this host are opened", trail)
        return FileSource(os.path.join(os.path.dirname(trail[-1]), name))


def policy(trust: Trust) -> Policy:
    """The policy that `trust` stands for."""
    if trust is True:
        return Everything()
    if trust is False:
        return Nothing()
    raise NotImplementedError(trust)
