"""The chain below an image as explicit nodes, so that QEMU guesses no format on the way."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from pyvirt.disk.format import WITH_BACKING, Format
from pyvirt.disk.node import BlockNode
from pyvirt.disk.secret import Secret
from pyvirt.errors import ImageError
from pyvirt.fields import frozen
from pyvirt.image.detection import detect
from pyvirt.image.source import FileSource
from pyvirt.qemu_img.call import node
from pyvirt.qemu_img.calls import Backing
from pyvirt.running.tools.described import info_of
from pyvirt.running.tools.journal import bytes_of, redo_of
from pyvirt.running.tools.writing import Work

#: Images in one chain; QEMU itself gets slow long before.
DEPTH = 200


@frozen
class Below:
    """A backing image: its file, and what the image above says of it."""

    path: Path
    named: Backing

    @property
    def format(self) -> str:
        return self.named.format


def below(work: Work, path: Path, format: str) -> Below | None:
    """The backing image that the header of `path` names, where it is a file of this host."""
    if format not in WITH_BACKING:
        return None
    info = info_of(work, path, format)
    name = info.get("backing-filename")
    if not name or _is_elsewhere(name):
        return None
    # From the directory of the link that may lead here, as QEMU does it.
    lower = Path(os.path.abspath(path.parent / name))
    if format == "qed" and "backing-filename-format" not in info:
        return Below(lower, Backing(name, _not_raw(lower)))
    if "backing-filename-format" not in info:
        reason = f"does not say the format of its backing image {name}; an unsafe rebase says it"
        raise ImageError(path, reason, format=format)
    return Below(lower, Backing(name, info["backing-filename-format"]))


def beneath_of(work: Work, top: Path, first: Below, base: Path) -> Below | None:
    """`base` as `top` would name it, found below its `first` backing image; None if it is that.

    A name that was relative stays so, but is from where `top` lies.
    """
    one: Below | None = first
    for _ in range(DEPTH):
        if one is None:
            break
        if one.path.exists() and base.exists() and one.path.samefile(base):
            name = os.path.relpath(one.path, top.parent)
            name = one.named.name if os.path.isabs(one.named.name) else name
            return None if one is first else attrs.evolve(one, named=Backing(name, one.format))
        one = below(work, one.path, one.format)
    raise ImageError(base, f"is not below {top}")


def image_node(
    work: Work,
    path: Path,
    format: str,
    key: Secret | None = None,
    file: BlockNode | None = None,
    trail: tuple[Path, ...] = (),
) -> BlockNode:
    """`path` with all that is below it; `file` takes the place of its own bytes."""
    if len(trail) >= DEPTH:
        raise ImageError(trail[0], f"has a chain of more than {DEPTH} images", format=format)
    if path in trail:
        led = " -> ".join(map(str, (*trail, path)))
        raise ImageError(path, f"is its own backing image: {led}", format=format)
    if file is None and path.is_file() and redo_of(path).exists():
        raise ImageError(path, "was being changed when that was cut short; recover() finishes it")
    own = bytes_of(path) if file is None else file
    lower = below(work, path, format)
    if lower is None:
        return node(path, format, key, own)
    beneath = image_node(work, lower.path, lower.format, trail=(*trail, path))
    return Format(format, own, backing=beneath, key=key)


def _not_raw(path: Path) -> str:
    """The format by content: QED can say no more of it than that it is not raw."""
    with FileSource(path) as source:
        for match in detect(source):
            if match.format != "raw":
                return match.format
    raise ImageError(path, "is in no known format, and by the image above it is not raw")


def _is_elsewhere(name: str) -> bool:
    """Whether QEMU takes the name for a protocol: a colon before any slash."""
    return ":" in name.partition("/")[0]


