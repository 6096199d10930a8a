"""VMDK images of VMware: a descriptor, and extents in this file or in others.

Source: VMware's "Virtual Disk Format 5.0". Extents in other files are opened when their bytes
are asked for, so that what an image says of itself can be read without trusting it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from attrs import frozen

from pyvirt._native.columns import Columns
from pyvirt.errors import FeatureError, ImageError
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Extents
from pyvirt.image.formats.blocks import DATA, ZERO, Map
from pyvirt.image.formats.flat import marked
from pyvirt.image.formats.unpack import zlib_stream
from pyvirt.image.formats.vmdk_descriptor import (
    MOST,
    SECTOR,
    Descriptor,
    ExtentLine,
    descriptor,
    looks_like,
)
from pyvirt.image.formats.vmdk_extent import (
    COWD,
    FLAG_MARKERS,
    KDMV,
    MARKER,
    SESPARSE,
    AnyHeader,
    SparseExtent,
    SparseHeader,
    cowd_extent,
    sesparse_extent,
    sparse_extent,
    sparse_header,
)
from pyvirt.image.layer import Match, Reference, Shown, Siblings
from pyvirt.image.source import Source, exactly, name_of
from pyvirt.image.structure import Place, divided

_MONOLITHIC = ("monolithicSparse", "streamOptimized")
_KNOWN = (
    *_MONOLITHIC,
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "vmfs",
    "vmfsSparse",
    "vmfsThin",
    "seSparse",
    "custom",
)


@frozen
class Info:
    """What the image says of itself; one of both may be missing."""

    descriptor: Descriptor | None
    header: AnyHeader | None


@frozen
class Part:
    """An extent of the disk: guest bytes `start` up to `start + length`, in source `file`."""

    start: int
    length: int
    file: int
    source: Source | None
    #: For sparse extents; others lie in their file from byte `offset` on, or are zeros.
    sparse: SparseExtent | None = None
    offset: int = 0

    def fill(self, columns: Columns, first: int, last: int, budget: Budget) -> None:
        """Add the extents of guest bytes `first` up to `last`, which are inside this part."""
        if self.sparse is not None:
            self._fill_sparse(columns, self.sparse.map, first - self.start, last - self.start)
        elif self.source is None:
            columns.add(first, last - first, 0, ZERO)
        else:
            flat = Columns(1)
            flat.add(first, last - first, self.offset + first - self.start, DATA, file=self.file)
            for one in Extents(marked(flat, self.source, budget, self.file)):
                columns.add(one.start, one.length, one.host, one.flags, file=self.file)

    def _fill_sparse(self, columns: Columns, map: Map, first: int, last: int) -> None:
        last = min(self.length, divided(last, map.block) * map.block)
        map.fill(columns, first, last, self.start)


class VmdkLayer(Shown):
    """The extents of a descriptor, one behind the other."""

    format = "vmdk"

    def __init__(
        self,
        source: Source,
        size: int,
        info: Info,
        references: tuple[Reference, ...],
        parts: Callable[[], Sequence[Part]],
        budget: Budget,
    ) -> None:
        self.size, self.info, self.references = size, info, references
        self.name, self.source = name_of(source), source
        self._find, self._budget = parts, budget

    @cached_property
    def _parts(self) -> Sequence[Part]:
        return self._find()

    @property
    def block(self) -> int:
        """Bytes of a grain; of a sector if no extent has grains."""
        return max((one.sparse.map.block for one in self._parts if one.sparse), default=SECTOR)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The files with the extents' bytes."""
        return tuple(part.source for part in self._parts if part.source is not None)

    def extents(self, start: int = 0, stop: int | None = None) -> Extents:
        """This layer alone from byte `start` to `stop`, in whole grains."""
        stop = self.size if stop is None else min(stop, self.size)
        parts = [one for one in self._parts if one.start < stop and start < one.start + one.length]
        columns = Columns(self._budget.extents(sum(map(self._most, parts)) + 1))
        for part in parts:
            first, last = max(start, part.start), min(stop, part.start + part.length)
            if first < last:
                part.fill(columns, first, last, self._budget)
        return Extents(columns)

    def _most(self, part: Part) -> int:
        """Extents that a part may have at most; a flat one as many as its file has holes."""
        if part.sparse is not None:
            return divided(part.length, part.sparse.map.block) + 2
        return 1 if part.source is None else part.length // 4096 + 2

    def inflate(self, data: bytes, size: int) -> bytes:
        """A grain of a stream-optimized extent; the disk's last one may be stored short."""
        header = self._parts[0].sparse.header if self._parts[0].sparse else None
        if not isinstance(header, SparseHeader):
            raise ValueError("this vmdk has no compressed grains")
        if not header.flags & FLAG_MARKERS:
            return zlib_stream(data, size)
        first, stored = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:12], "little")
        whole = min(size, (header.capacity - first) * SECTOR)
        if len(data) < MARKER or whole <= 0 or stored > len(data) - MARKER:
            raise ImageError(self.name, "has a wrong grain marker", format="vmdk", found=first)
        grain = zlib_stream(data[MARKER : MARKER + stored], size, whole)
        return grain.ljust(size, b"\0")

    @property
    def identity(self) -> str | None:
        """What images made over this one call it."""
        about = self.info.descriptor
        return f"CID {about.cid:08x}" if about else None

    @property
    def parent_identity(self) -> str | None:
        """What this image calls its parent."""
        about = self.info.descriptor
        named = about is not None and about.parent_file_name_hint is not None
        return f"CID {about.parent_cid:08x}" if about and named else None


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    for magic in (KDMV, COWD):
        if head.startswith(magic):
            return Match("vmdk", 98, f"begins with '{magic.decode()}'")
    if head.startswith(SESPARSE.to_bytes(8, "little")):
        return Match("vmdk", 95, "begins as a seSparse extent")
    if looks_like(head):
        known = b"createType" in head and b"CID=" in head
        return Match("vmdk", 100 if known else 60, "is a descriptor: its first line is a version")
    return None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> VmdkLayer:
    place = Place(name_of(source), "vmdk", "header")
    head = exactly(source, 8, 0, "header") if source.size >= 8 else source.pread(8, 0)
    if head.startswith(KDMV):
        return _hosted(place, source, budget, siblings)
    if head.startswith(COWD):
        return _alone(source, None, cowd_extent(place, source), budget)
    if head == SESPARSE.to_bytes(8, "little"):
        return _alone(source, None, sesparse_extent(place, source), budget)
    text = source.pread(MOST, 0)
    if not looks_like(text) and b"createType" not in text[:4096]:
        raise place.error("is neither a VMDK descriptor nor an extent", 0, found=head)
    return _described(place, source, descriptor(place.table_at(0, "descriptor"), text), None,
                      budget, siblings)  # fmt: skip


def _hosted(place: Place, source: Source, budget: Budget, siblings: Siblings) -> VmdkLayer:
    """A file with a header: its own extent, unless that is empty."""
    header = sparse_header(place, source)
    about = None
    if header.descriptor_offset and header.descriptor_size:
        start = header.descriptor_offset * SECTOR
        text = source.pread(min(MOST, header.descriptor_size * SECTOR), start)
        about = descriptor(place.table_at(start, "descriptor"), text)
    if header.capacity or about is None:
        if not header.capacity:
            raise place.wrong(header, "capacity", "more than 0, or a descriptor")
        return _alone(source, about, sparse_extent(place, source, header), budget)
    return _described(place, source, about, header, budget, siblings)


def _alone(
    source: Source, about: Descriptor | None, extent: SparseExtent, budget: Budget
) -> VmdkLayer:
    """A file that is its only extent, whatever its descriptor calls it."""
    part = Part(0, extent.size, 0, source, extent)
    info = Info(about, extent.header)
    return VmdkLayer(source, extent.size, info, _parent(about), lambda: [part], budget)


def _described(
    place: Place,
    source: Source,
    about: Descriptor,
    header: AnyHeader | None,
    budget: Budget,
    siblings: Siblings,
) -> VmdkLayer:
    """A descriptor whose extents are in other files."""
    if about.create_type not in _KNOWN:
        raise FeatureError(place.path, "vmdk", (f"createType {about.create_type!r}",))
    if not about.extents:
        raise place.error("names no extents")
    names = tuple(_reference(one) for one in about.extents if one.filename is not None)
    return VmdkLayer(
        source,
        about.sectors * SECTOR,
        Info(about, header),
        (*_parent(about), *names),
        lambda: _open_parts(about, siblings),
        budget,
    )


def _parent(about: Descriptor | None) -> tuple[Reference, ...]:
    if about is None or about.parent_file_name_hint is None:
        return ()
    return (Reference("backing", about.parent_file_name_hint, "vmdk"),)


def _reference(line: ExtentLine) -> Reference:
    return Reference("extent", line.filename or "", "raw" if line.flat else "vmdk")


def _open_parts(about: Descriptor, siblings: Siblings) -> list[Part]:
    parts: list[Part] = []
    start = files = 0
    for line in about.extents:
        source = None if line.filename is None else siblings(_reference(line))
        part = _part(line, start, files, source)
        parts.append(part)
        start += part.length
        files += source is not None
    return parts


def _part(line: ExtentLine, start: int, file: int, source: Source | None) -> Part:
    length, offset = line.size * SECTOR, line.offset * SECTOR
    if source is None:
        return Part(start, length, file, None)
    place = Place(name_of(source), "vmdk", "header")
    if line.flat:
        if source.size < offset + length:
            raise place.table_at(0, "flat extent").error(
                "is shorter than its line says", found=source.size, expected=offset + length
            )
        return Part(start, length, file, source, None, offset)
    sparse = _sparse(place, source, line, file)
    if sparse.size < length:
        raise place.error("is smaller than its line says", found=sparse.size, expected=length)
    return Part(start, length, file, source, sparse)


def _sparse(place: Place, source: Source, line: ExtentLine, file: int) -> SparseExtent:
    if line.type == "SESPARSE":
        return sesparse_extent(place, source, file)
    if source.pread(4, 0) == COWD:
        return cowd_extent(place, source, file)
    header = sparse_header(place, source)
    if not header.capacity:
        raise place.wrong(header, "capacity", f"at least {line.size}")
    return sparse_extent(place, source, header, file)
