"""An image and the chain below it, read without QEMU."""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack
from functools import cached_property
from typing import Any

from pyvirt._native.columns import Columns
from pyvirt.errors import ImageError, ImageInUse, UnsupportedError
from pyvirt.image import mapcheck
from pyvirt.image.budget import Budget
from pyvirt.image.chain import Opener, backing_of
from pyvirt.image.detection import detect
from pyvirt.image.extents import Extents
from pyvirt.image.holders import writers
from pyvirt.image.info import Info, described
from pyvirt.image.inside import Inside, inside
from pyvirt.image.layer import Layer, Match
from pyvirt.image.measure import Measurement, Statistics, Target, measured
from pyvirt.image.merge import clip, mark_holes, merge
from pyvirt.image.names import absolute
from pyvirt.image.policy import Trail, Trust, policy
from pyvirt.image.readable import Readable
from pyvirt.image.source import FileSource, Source, name_of


class Image(Readable):
    """A disk image of any format, opened read-only from a path, a descriptor or a source.

    `trust` says which other files it may make us open (backing images, data files, extents):
    none unless the caller allows it; see `pyvirt.image.policy`. Without `format` the content
    decides, and `matches` tells what else it could be.

    `held` tells which processes may be writing the image meanwhile, with a warning `ImageInUse`:
    what is read then may be torn. A guest that is paused or shut down gives whole answers.

        with Image("disk.qcow2") as image:
            for extent in image.extents():
                print(extent)
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | int | Source,
        format: str | None = None,
        *,
        trust: Trust = False,
        snapshot: str | None = None,
        passphrase: str | bytes | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.budget = budget or Budget()
        self.passphrase = passphrase
        self._open = ExitStack()
        self._opener = Opener(policy(trust), self.budget, self._own)
        try:
            self.source = self._source(file)
            self.name = name_of(self.source)
            self.matches: tuple[Match, ...] = () if format else detect(self.source)
            self._trail = Trail((self.name,), _path(file))
            chosen = format or self.matches[0].format
            self.layer = self._opener.layer(self.source, chosen, self._trail)
            self._active = self.layer
            if snapshot is not None:
                self.layer = _snapshot(self.layer, snapshot)
            self.held = writers(self.source)
        except BaseException:
            self.close()
            raise
        if self.held is not None:
            warnings.warn(ImageInUse(self.name, str(self.held)), stacklevel=2)

    def _source(self, file: Any) -> Source:
        if isinstance(file, str | os.PathLike | int):
            return self._own(FileSource(file))
        if not isinstance(file, Source):
            raise TypeError(f"an image is a path, a descriptor or has size and pread: {file!r}")
        return file  # Whoever made it closes it.

    def _own(self, source: Source) -> Source:
        close = getattr(source, "close", None)
        if close is not None:
            self._open.callback(close)
        return source

    @property
    def format(self) -> str:
        """QEMU's name of the format."""
        return self.layer.format

    @property
    def size(self) -> int:
        """Bytes that the guest sees."""
        return self.layer.size

    @property
    def info(self) -> Info:
        """What the image is, who holds it now, and its header in the words of its format."""
        return described(self.layer, self.matches)

    @property
    def infos(self) -> tuple[Info, ...]:
        """The same of each image of the chain, top first."""
        return (self.info, *map(described, self.layers[1:]))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The chain, top first. Opens the backing images, if `trust` allows it."""
        return tuple(self._opener.chain(self.layer, self.source, self._trail))

    def extents(
        self,
        start: int = 0,
        stop: int | None = None,
        *,
        chain: bool = False,
        holes: bool | None = None,
    ) -> Extents:
        """What is where from byte `start` to `stop`: in this layer, or in the whole `chain`.

        With `holes`, data that lies in a hole of its file is told as zero, too. None does it
        as QEMU does: in a chain, for images that look preallocated.
        """
        if start < 0:
            raise ValueError(f"start must not be negative, got {start}")
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return Extents.of([])
        layers = self.layers if chain else (self.layer,)
        found = merge(layers, start, stop, self.budget)
        if not backing_of(layers[-1]):
            found.columns.ground()
        if holes or (holes is None and chain):
            every = bool(holes)
            sparse = [every or getattr(layer, "preallocated", False) for layer in layers]
            marked = [layer if here else None for layer, here in zip(layers, sparse, strict=True)]
            found = mark_holes(marked, found, self.budget)
        return clip(found, start, stop)

    def check(self) -> Any:
        """Check the metadata of the image; nothing is repaired.

        Of qcow2, all of it: see `pyvirt.image.qcow2.check.check`. Of QED, VDI, VMDK, VHDX and
        Parallels, that each block has a place of its own in the file; of QED also that none is
        lost. Raises `UnsupportedError` where the format has nothing to check.
        """
        check = getattr(self.layer, "check", None)
        if check is not None:
            return check()
        if self.format not in mapcheck.FORMATS:
            raise UnsupportedError("a check", f"format {self.format}")
        return mapcheck.check_map(self.layer)

    def dirty(self, bitmap: str) -> Extents:
        """The ranges of the disk that a persistent bitmap marks, neighbours as one.

        Only `start` and `length` mean anything. `info.bitmaps` lists the bitmaps; one that is not
        `consistent` may be told wrongly.
        """
        found: Extents = self._bitmaps("dirty")(bitmap)
        return found

    def bitmap(self, name: str) -> bytearray:
        """The bits of a persistent bitmap, least significant first; each stands for as many
        bytes of the disk as its `granularity` says."""
        bits: bytearray = self._bitmaps("bitmap")(name)
        return bits

    def _bitmaps(self, act: str) -> Any:
        found = getattr(self._active, act, None)
        if found is None:
            raise ImageError(self.name, f"has no bitmaps in format {self.format}")
        return found

    def measure(self, format: str = "qcow2", **options: Any) -> Measurement:
        """How large the content of this image is in a new image, as ``qemu-img measure`` says.

        `options` are those of `Target`, in the words of ``qemu-img create``.
        """
        target = Target(format, **options)
        extents = self.extents(chain=True)
        touched = extents.columns.sums(target.cluster_size)["touched"]
        bitmaps = getattr(self.layer, "persistent", None)
        return measured(target, self.size, touched * target.cluster_size, bitmaps)

    def statistics(self) -> Statistics:
        """How much of this layer is allocated, zero, compressed, and how it is scattered."""
        extents = self.extents()
        return Statistics(extents=len(extents), **extents.columns.sums(self.layer.block))

    def diff(self, old: str | None, new: str | None = None) -> Extents:
        """What changed from internal snapshot `old` to `new`, by the metadata alone.

        These are extents of `new`; None is the active disk. Rewritten with equal bytes is
        changed all the same.
        """
        layers = [_snapshot(self._active, name) if name else self._active for name in (old, new)]
        a, b = (layer.extents() for layer in layers)
        columns = Columns(self.budget.extents(len(a) + len(b) + 1))
        columns.subtract(a.columns, b.columns)
        return Extents(columns)

    def map_svg(self, *, chain: bool = False) -> str:
        """A picture of what is where, in the disk and in the file: this layer, or the `chain`."""
        from pyvirt.image.picture import draw

        extents = self.extents(chain=chain)
        return draw(self.name, self.format, self.size, self.source.size, extents)

    def map_png(self, *, chain: bool = False, scale: float = 1) -> bytes:
        """The same picture as PNG, `scale` times 960 pixels wide; needs the package cairosvg."""
        from pyvirt.image.picture import png

        return png(self.map_svg(chain=chain), scale)

    def _repr_html_(self) -> str:
        return f"<div>{self.map_svg()}</div>"

    def partitions(self, *, nested: bool = False) -> Inside:
        """The partition table, and the file systems and the like that the disk holds.

        With `nested`, disk images inside of it are opened too.
        """
        return inside(self, nested=nested)

    def close(self) -> None:
        """Close every file that this opened; once is enough."""
        self._open.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        layer = getattr(self, "layer", None)
        return f"Image({self.name!r}, {layer.format!r})" if layer else "Image(closed)"


def _path(file: Any) -> str | None:
    """What names inside the image are relative to."""
    return absolute(os.fspath(file)) if isinstance(file, str | os.PathLike) else None


def _snapshot(layer: Layer, name: str) -> Layer:
    find = getattr(layer, "snapshot", None)
    if find is None:
        name = name_of(getattr(layer, "source", None) or layer.sources[0])
        raise ImageError(name, f"has no snapshots in format {layer.format}")
    return find(name)  # type: ignore[no-any-return]

