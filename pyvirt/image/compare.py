"""Two images compared by what a guest reads, and one of them hashed.

What the maps know to be zeros, or to be the same bytes of the same file, is not read.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from pyvirt._native.columns import Columns
from pyvirt._native.content import Side, changes, differs
from pyvirt.errors import ImageError
from pyvirt.image.content import PIECE, pieces, stored_ranges
from pyvirt.image.extents import Extents

#: Called with the bytes done and those to do. What it raises ends the work, and is raised.
Progress = Callable[[int, int], object]

_ZEROS = bytes(PIECE)


@frozen
class Comparison:
    """How two images differ. Beyond the end of the smaller one, zeros count as equal."""

    sizes: tuple[int, int]
    #: The first guest byte that differs.
    first: int | None
    #: All sectors that differ, if they were asked for; only `start` and `length` mean anything.
    differing: Extents | None = None

    @property
    def equal(self) -> bool:
        """Whether a guest reads the same, zeros beyond the smaller disk's end included."""
        return self.first is None

    @property
    def identical(self) -> bool:
        """Equal, and of one size: what ``qemu-img compare -s`` asks."""
        return self.equal and self.sizes[0] == self.sizes[1]


def compare(a: Any, b: Any, *, all: bool = False, progress: Progress | None = None) -> Comparison:
    """Compare two images up to the first difference, or find `all` of them."""
    before = state(a), state(b)
    to_do, sizes = suspects(a, b), (a.size, b.size)
    first, found = None, Columns(a.budget.extents(max(sizes) // 512 + 1)) if all else None
    for offset, one, other in _both(a, b, to_do, progress):
        at = differs(one, other)
        if at == len(one):
            continue
        first = offset + at if first is None else first
        if found is None:
            break
        changes(one, other, offset, found)
    unchanged(a, before[0])
    unchanged(b, before[1])
    return Comparison(sizes, first, None if found is None else Extents(found))


def suspects(a: Any, b: Any) -> Extents:
    """What may differ as far as the maps tell; flag 1: `a` has data there, 2: `b` has."""
    numbers: dict[Any, int] = {}
    maps = [image.extents(chain=True, holes=True) for image in (a, b)]
    sides = [_side(image, map, numbers) for image, map in zip((a, b), maps, strict=True)]
    columns = Columns(a.budget.extents(len(maps[0]) + len(maps[1]) + 1))
    sides[0].suspects(sides[1], max(a.size, b.size), columns)
    return Extents(columns)


def _side(image: Any, map: Extents, numbers: dict[Any, int]) -> Side:
    first, same = array("I"), array("I")
    for layer in image.layers:
        first.append(len(same))
        for source in layer.sources:
            identity = getattr(source, "identity", None) or id(source)
            same.append(numbers.setdefault(identity, len(numbers)))
    return Side(map.columns, first, same)


def _both(
    a: Any, b: Any, to_do: Extents, progress: Progress | None
) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Offset and bytes of both images, in pieces of what may differ."""
    buffers = memoryview(bytearray(PIECE)), memoryview(bytearray(PIECE))
    done, total = 0, sum(to_do.length)
    for start, length, flags in zip(to_do.start, to_do.length, to_do.flags, strict=True):
        for offset, size in pieces([(start, start + length)]):
            yield (
                offset,
                _read(a, offset, buffers[0][:size], flags & 1),
                _read(b, offset, buffers[1][:size], flags & 2),
            )
            done += size
            if progress is not None:
                progress(done, total)


def _read(image: Any, offset: int, buffer: memoryview, stored: int) -> memoryview:
    if not stored:
        return memoryview(_ZEROS)[: len(buffer)]
    got = image.readinto(buffer, offset)
    buffer[got:] = _ZEROS[: len(buffer) - got]
    return buffer


# -- Hashes ------------------------------------------------------------------------------------


def content_hash(image: Any, algorithm: str, block: int | None, progress: Progress | None) -> str:
    """See `Image.hash`."""
    before = state(image)
    parts = list(stored_ranges(image.extents(chain=True, holes=True)))
    total = hashlib.new(algorithm, usedforsecurity=False)
    if block is None:
        _stream(image, parts, total, progress)
    else:
        _tree(image, parts, total, block, progress)
    unchanged(image, before)
    return total.hexdigest()


def _stream(
    image: Any, parts: list[tuple[int, int]], total: Any, progress: Progress | None
) -> None:
    buffer, at = memoryview(bytearray(PIECE)), 0
    for offset, size in pieces(parts):
        _hash_zeros(total, offset - at)
        total.update(_read(image, offset, buffer[:size], 1))
        at = offset + size
        if progress is not None:
            progress(at, image.size)
    _hash_zeros(total, image.size - at)


def _hash_zeros(total: Any, size: int) -> None:
    for _ in range(size // PIECE):
        total.update(_ZEROS)
    total.update(memoryview(_ZEROS)[: size % PIECE])


def _tree(
    image: Any, parts: list[tuple[int, int]], total: Any, block: int, progress: Progress | None
) -> None:
    """Hash the hashes of all blocks; those of zeros are known."""
    if block <= 0:
        raise ValueError(f"block must be positive, got {block}")
    zero = _digest(total.name, bytes(block))
    some, at, whole = zero * 4096, 0, image.size // block
    for index in _touched(parts, block, whole):
        _repeat(total, zero, some, index - at)
        total.update(_digest(total.name, image.read(index * block, block)))
        at = index + 1
        if progress is not None:
            progress(at * block, image.size)
    _repeat(total, zero, some, whole - at)
    if image.size % block:
        total.update(_digest(total.name, image.read(whole * block, block)))


def _touched(parts: list[tuple[int, int]], block: int, whole: int) -> Iterator[int]:
    """Numbers of the whole blocks that may hold more than zeros, ascending."""
    at = 0
    for start, end in parts:
        first, at = max(at, start // block), min(whole, -(-end // block))
        yield from range(first, at)


def _repeat(total: Any, one: bytes, some: bytes, count: int) -> None:
    many = len(some) // len(one)
    for _ in range(count // many):
        total.update(some)
    total.update(some[: count % many * len(one)])


def _digest(algorithm: str, data: bytes) -> bytes:
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


# -- Files that change ---------------------------------------------------------------------------


def state(image: Any) -> list[Any]:
    """What changes when one of the image's files is written."""
    files = [source for layer in image.layers for source in layer.sources]
    return [_stamp(source) for source in files]


def _stamp(source: Any) -> Any:
    find = getattr(source, "fileno", None)
    if find is None:
        return None
    status = os.fstat(find())
    return status.st_size, status.st_mtime_ns


def unchanged(image: Any, before: list[Any]) -> None:
    """Refuse what was computed of files that were written meanwhile."""
    if state(image) != before:
        raise ImageError(image.name, "changed while it was read")
