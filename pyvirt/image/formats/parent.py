"""Whether the image below is the one that an image was made over."""

from __future__ import annotations

from pyvirt.errors import ImageError
from pyvirt.image.layer import Layer
from pyvirt.image.source import name_of


def check_parent(layer: Layer, parent: Layer) -> None:
    """Raise `ImageError` unless `parent` is what it was when `layer` was made over it.

    `layer.parent_identity` is what it expects `parent.identity` to be; None expects nothing.
    """
    expected = getattr(layer, "parent_identity", None)
    found = getattr(parent, "identity", None)
    if expected is not None and found != expected:
        raise ImageError(
            getattr(layer, "name", None) or name_of(layer.sources[0]),
            "has another parent, or one that was changed",
            format=layer.format,
            found=found or f"an image of format {parent.format}",
            expected=expected,
        )


def posix(name: str) -> str:
    """A relative name as Windows writes it, as we do."""
    return name.replace("\\", "/")
