"""An image and the chain below it, read without QEMU."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cached_property
from typing import Any

from pyvirt._native.columns import Columns
from pyvirt.errors import ImageError
from pyvirt.image.budget import Budget
from pyvirt.image.detect import detect
from pyvirt.image.extents import Extents
from pyvirt.image.formats import format_module
from pyvirt.image.layer import Layer, Match, Reference
from pyvirt.image.policy import Trust, policy
from pyvirt.image.source import FileSource, Source, name_of


class Image:
    """A disk image of any format, opened read-only from a path, a descriptor or a source.

    `trust` says which other files it may make us open (backing images, data files, extents):
    none unless the caller allows it; see `pyvirt.image.policy`. Without `format` the content
    decides, and `matches` tells what else it could be.

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
        self.policy = policy(trust)
        self.passphrase = passphrase
        self._open = ExitStack()
        try:
            self.source = self._source(file)
            self.name = name_of(self.source)
            self.matches: tuple[Match, ...] = () if format else detect(self.source)
            self.layer = self._layer(self.source, format or self.matches[0].format, (self.name,))
            if snapshot is not None:
                self.layer = _snapshot(self.layer, snapshot)
        except BaseException:
            self.close()
            raise

    def _source(self, file: Any) -> Source:
        if isinstance(file, str | os.PathLike | int):
            return self._own(FileSource(file))
        return file  # type: ignore[no-any-return]  # Whoever made it closes it.

    def _own(self, source: Source) -> Source:
        close = getattr(source, "close", None)
        if close is not None:
            self._open.callback(close)
        return source

    def _layer(self, source: Source, format: str, trail: tuple[str, ...]) -> Layer:
        def sibling(reference: Reference) -> Source:
            return self._own(self.policy.open(reference, trail))

        return format_module(format).open(source, budget=self.budget, siblings=sibling)

    @property
    def format(self) -> str:
        """QEMU's name of the format."""
        return self.layer.format

    @property
    def size(self) -> int:
        """Bytes that the guest sees."""
        return self.layer.size

    @property
    def info(self) -> Any:
        """The header, in the words of the format's specification."""
        return self.layer.info

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The chain, top first. Opens the backing images, if `trust` allows it."""
        layers, layer = [self.layer], self.layer
        trail: tuple[str, ...] = (self.name,)
        seen = {getattr(self.source, "identity", None)} - {None}
        while backing := _backing(layer):
            if len(layers) > self.budget.depth:
                raise ImageError(trail[-1], f"has a chain of over {self.budget.depth} images")
            source = self._own(self.policy.open(backing, trail))
            identity = getattr(source, "identity", None)
            if identity in seen:
                raise ImageError(name_of(source), f"is its own backing image: {_led(trail)}")
            seen |= {identity} - {None}
            trail = (*trail, name_of(source))
            layer = self._layer(source, backing.format or detect(source)[0].format, trail)
            layers.append(layer)
        return tuple(layers)

    def extents(self, start: int = 0, stop: int | None = None, *, chain: bool = False) -> Extents:
        """What is where from byte `start` to `stop`: in this layer, or in the whole `chain`."""
        stop = self.size if stop is None else min(stop, self.size)
        if not chain:
            return self.layer.extents(start, stop)
        below: Extents | None = None
        end = 0
        for layer in reversed(self.layers):
            own = layer.extents(start, min(stop, layer.size))
            below = lay(own, below or Extents.of(()), end, self.budget)
            end = layer.size
        assert below is not None
        return below

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


def lay(top: Extents, below: Extents, below_end: int, budget: Budget) -> Extents:
    """`top` over `below`, whose image ends at byte `below_end`: zeros beyond it."""
    most = 2 * len(top) + len(below) + 1
    columns = Columns(budget.extents(most))
    columns.lay(top.columns, below.columns, below_end)
    return Extents(columns)


def _backing(layer: Layer) -> Reference | None:
    return next((one for one in layer.references if one.kind == "backing"), None)


def _led(trail: tuple[str, ...]) -> str:
    return " -> ".join(trail)


def _snapshot(layer: Layer, name: str) -> Layer:
    find = getattr(layer, "snapshot", None)
    if find is None:
        raise ImageError(name_of(layer.sources[0]), f"has no snapshots in format {layer.format}")
    return find(name)  # type: ignore[no-any-return]

