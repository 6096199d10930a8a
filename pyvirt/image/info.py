"""What an image is, in a few words of our own and all those of its format."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from pyvirt.image.holders import Held, writers
from pyvirt.image.layer import Layer, Match, Reference
from pyvirt.image.source import Source, name_of


@frozen
class Info:
    """What one image of a chain says of itself; sizes in bytes.

    Has the attributes of `facts`, too: of a qcow2 image, `info.header.cluster_bits`.
    """

    path: str
    format: str
    #: Bytes that the guest sees, and those of the file.
    size: int
    file_size: int
    #: Bytes that the file takes in its file system; None for what is no file.
    allocated: int | None
    #: What the file could be, best first; nothing if the caller said what it is.
    matches: tuple[Match, ...]
    #: Who may be writing the image now.
    held: Held | None
    #: The other files that it names.
    references: tuple[Reference, ...]
    #: The header, in the words of the format's specification.
    facts: Any

    @property
    def torn(self) -> bool:
        """Whether what is read, this included, may be from before and after a write at once."""
        return self.held is not None

    def __getattr__(self, name: str) -> Any:
        if name == "facts" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.facts, name)


def described(layer: Layer, matches: tuple[Match, ...] = ()) -> Info:
    """The image of `layer`, and who holds its file now."""
    # The data file of a qcow2 image is not opened only because someone asks what it is.
    source: Source = getattr(layer, "source", None) or layer.sources[0]
    return Info(
        name_of(source), layer.format, layer.size, source.size,
        getattr(source, "allocated", None), matches, writers(source), layer.references, layer.info,
    )  # fmt: skip
