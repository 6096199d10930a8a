"""What every format gives: one image file (and its companions) as a layer of a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen

from pyvirt.image.extents import Extents
from pyvirt.image.source import Source, name_of


@frozen
class Reference:
    """Another file that an image names; `kind` is "backing", "data-file" or "extent"."""

    kind: str
    name: str
    #: The format that the image says the file has.
    format: str | None = None


@frozen
class Match:
    """A format that a file may have; `confidence` 0 to 100, and why."""

    format: str
    confidence: int
    reason: str


#: Opens what an image names, or raises `PolicyError`.
Siblings = Callable[[Reference], Source]


class Layer(Protocol):
    """One image of a chain, without what lies below it."""

    @property
    def format(self) -> str: ...
    @property
    def size(self) -> int:
        """Bytes that the guest sees."""
        ...

    @property
    def block(self) -> int:
        """Granularity in bytes: what a compressed extent unpacks to, at most."""
        ...

    @property
    def sources(self) -> tuple[Source, ...]:
        """The files of this layer, as the column `file` of its extents counts them."""
        ...

    @property
    def info(self) -> Any:
        """The header, in the specification's own words."""
        ...

    @property
    def references(self) -> tuple[Reference, ...]: ...

    def extents(self, start: int = 0, stop: int | None = None) -> Extents:
        """This layer alone from byte `start` to `stop`, whole blocks, without gaps.

        What it does not have has no flags and falls through. The columns are new ones: who
        asked may change them.
        """
        ...

    def inflate(self, data: bytes, size: int) -> bytes:
        """A compressed block unpacked: `size` bytes of `data`'s content."""
        ...


class Shown:
    """The base of layers, for whoever looks at one."""

    format: str
    size: int

    def __repr__(self) -> str:
        source: Any = getattr(self, "source", None) or self.sources[0]  # type: ignore[attr-defined]
        return f"<{self.format} layer of {name_of(source)!r}: {self.size} bytes>"


class Format(Protocol):
    """A module of `pyvirt.image.formats`."""

    def probe(self, head: bytes, size: int, tail: bytes) -> Match | None: ...

    def open(self, source: Source, *, budget: Any, siblings: Siblings) -> Layer: ...
