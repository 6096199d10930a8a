"""What callers give for images, sizes and keys, made what the calls take."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import attrs

from pyvirt import fields
from pyvirt.disk.backend import default_format
from pyvirt.disk.node import BlockNode
from pyvirt.disk.secret import Secret, to_secret
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu_img.calls import Backing
from pyvirt.running.tools.chain import image_node
from pyvirt.running.tools.writing import Work

PathLike = str | os.PathLike[str]
Passphrase = str | os.PathLike[str] | Secret | None


def source_of(
    image: PathLike | BlockNode, format: str | None, key: Passphrase
) -> Callable[[Work], BlockNode]:
    """What makes the node of an image that is only read."""
    if isinstance(image, BlockNode):
        for name, value in (("source_format", format), ("key", key)):
            if value is not None:
                raise SpecError(name, f"belongs into the {image.driver} node here", value)
        return lambda work: image
    path, secret = absolute(image), secret_of(key)
    known = format or default_format(path)
    return lambda work: image_node(work, path, known, secret)


def backing_of(name: PathLike | None, format: str | None) -> Backing | None:
    if name is None:
        if format is not None:
            raise SpecError("backing_format", "needs backing", format)
        return None
    if format is None:
        raise SpecError("backing_format", "must be given: a format is never guessed", None)
    return Backing(os.fspath(name), format)


def absolute(path: PathLike) -> Path:
    """`path` from the root: QEMU takes "host:file" for a network, and we may change directory."""
    return Path(os.path.abspath(os.fspath(path)))


def size_of(size: int | str) -> int:
    value = fields.size(size, "size")
    if value < 0:
        raise SpecError("size", "must not be negative", size)
    return value


def secret_of(key: Passphrase) -> Secret | None:
    return _Key(key).key


@frozen
class _Key:
    key: Secret | None = attrs.field(converter=to_secret)
