"""What a guest reads from an image: the whole chain behind one flat map.

The map is taken when the first byte is read. Files that are cut or damaged meanwhile are told
as errors; of a file that someone writes to, no reader can promise more than pieces.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from pyvirt._native.content import Content
from pyvirt._native.unpack import codec
from pyvirt.errors import ImageError
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Extents, Flag
from pyvirt.image.layer import Layer
from pyvirt.image.source import exactly, name_of
from pyvirt.image.unlock import Lock, lock

#: Bytes of an unpacked block that are kept, as a share of the budget's memory.
CACHED = 8
#: Bytes that whole-image work reads at once.
PIECE = 1 << 20
# QEMU reads zeros where a qcow2 cluster lies behind the end of its file, as do we; `check` tells.
# The maps of other formats are refused when they name such places.
_NOWHERE = (1 << 64) - 1


def flat(
    layers: tuple[Layer, ...],
    extents: Extents,
    budget: Budget,
    passphrase: str | bytes | None = None,
) -> Content:
    """The content of a chain whose flattened map is `extents`."""
    first: list[int] = []
    origins: list[Any] = []
    for layer in layers:
        first.append(len(origins))
        origins += _origins(layer, lock(layer, passphrase))
    blocks = _Blocks(layers, tuple(first))
    return Content(
        extents.columns, layers[0].size, origins, first, blocks, budget.memory // CACHED
    )


def _origins(layer: Layer, secret: Lock) -> Iterator[Any]:
    header = getattr(layer.info, "header", None)
    compression = getattr(header, "compression", "") if layer.format == "qcow2" else ""
    for source in layer.sources:
        whole = -(-source.size // layer.block) * layer.block
        limit = _NOWHERE if layer.format == "qcow2" else whole
        number = codec(compression) if compression else 0
        yield (source, limit, layer.block, number, *secret)


class _Blocks:
    """Unpacks what no native codec does, by the layer itself."""

    def __init__(self, layers: tuple[Layer, ...], first: tuple[int, ...]) -> None:
        self.layers, self.first = layers, first

    def __call__(self, origin: int, start: int, host: int, stored: int) -> tuple[int, bytes]:
        depth = max(d for d, number in enumerate(self.first) if number <= origin)
        layer = self.layers[depth]
        source = layer.sources[origin - self.first[depth]]
        whole = next(one for one in layer.extents(start, start + 1) if one.end > start)
        if whole.host != host:
            raise ImageError(name_of(source), "changed while it was read", offset=host)
        data = exactly(source, min(stored, max(source.size - host, 0)), host, "block")
        try:
            return whole.start, bytes(layer.inflate(data, whole.length))
        except ImageError as error:
            raise ImageError(name_of(source), f"has a packed block that {error.reason}",
                             format=layer.format, offset=host, found=error.found,
                             expected=error.expected) from error  # fmt: skip


# -- Ranges ------------------------------------------------------------------------------------


def stored_ranges(extents: Extents) -> Iterator[tuple[int, int]]:
    """First byte and end of each part that does not read as zeros for certain."""
    start = end = 0
    for at, length, flags in zip(extents.start, extents.length, extents.flags, strict=True):
        if flags & Flag.ZERO or not flags & Flag.ALLOCATED:
            continue
        if at != end:
            if start < end:
                yield start, end
            start = at
        end = at + length
    if start < end:
        yield start, end


def pieces(ranges: Iterable[tuple[int, int]], size: int = PIECE) -> Iterator[tuple[int, int]]:
    """Offset and size of pieces of at most `size` bytes, cut at its multiples."""
    for start, end in ranges:
        while start < end:
            stop = min(end, (start // size + 1) * size)
            yield start, stop - start
            start = stop


def packed(offsets: Iterable[int]) -> Any:
    """Offsets as C takes them: a buffer of uint64, or copied into one."""
    try:
        view = memoryview(offsets)  # type: ignore[arg-type]
    except TypeError:
        return array("Q", offsets)
    if view.format not in ("Q", "L", "=Q", "=L", "<Q", "<L") or view.itemsize != 8:
        return array("Q", view)
    return view


class File(io.RawIOBase):
    """The content of an image as a read-only file."""

    def __init__(self, image: Any) -> None:
        super().__init__()
        self._image, self._at = image, 0
        self.name: str = image.name

    def __repr__(self) -> str:
        return f"<File of {self.name!r} at {self._at}{' (closed)' * self.closed}>"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._open()
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._image.size}
        if whence not in base:
            raise ValueError(f"whence must be 0, 1 or 2, got {whence}")
        if base[whence] + offset < 0:
            raise ValueError(f"cannot seek to {base[whence] + offset}")
        self._at = base[whence] + offset
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        self._open()
        got: int = self._image.readinto(buffer, self._at)
        self._at += got
        return got

    def read(self, size: int | None = -1, /) -> bytes:
        self._open()
        rest = max(self._image.size - self._at, 0)
        data: bytes = self._image.read(self._at, rest if size is None or size < 0 else size)
        self._at += len(data)
        return data

    def readall(self) -> bytes:
        return self.read()

    def _open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
