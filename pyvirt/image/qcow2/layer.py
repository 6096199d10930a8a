"""A qcow2 image as a layer of a chain."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property

from attrs import frozen

from pyvirt._native.columns import Columns, Reader
from pyvirt._native.qcow2 import Geometry
from pyvirt.errors import ImageError, UnsupportedError
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Extents
from pyvirt.image.layer import Reference, Shown, Siblings
from pyvirt.image.qcow2.bitmaps import Bitmap, dirty_ranges, read_bitmaps, read_bits
from pyvirt.image.qcow2.check import CheckResult, check, used
from pyvirt.image.qcow2.header import Header, read_l1
from pyvirt.image.qcow2.snapshots import Snapshot, read_snapshots
from pyvirt.image.source import Source, name_of


@frozen
class Qcow2Info:
    """What a qcow2 image says of itself; nothing of it was believed without a check."""

    header: Header
    snapshots: tuple[Snapshot, ...]
    bitmaps: tuple[Bitmap, ...]


class Qcow2Layer(Shown):
    """The active disk of a qcow2 image, or one of its snapshots."""

    format = "qcow2"

    def __init__(
        self, source: Source, header: Header, budget: Budget, siblings: Siblings | None = None
    ) -> None:
        self.header, self.budget = header, budget
        self.size, self.block = header.size, header.cluster_size
        self.l1_table_offset, self.l1_size = header.l1_table_offset, header.l1_size
        self.source, self._siblings = source, siblings

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The image file, and its data file where it has one."""
        data = [one for one in self.references if one.kind == "data-file"]
        if not data or self._siblings is None:
            return (self.source,)
        return (self.source, self._siblings(data[0]))

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        header, found = self.header, []
        if header.backing_file is not None:
            found.append(Reference("backing", header.backing_file, header.backing_format))
        if header.external:
            found.append(Reference("data-file", header.data_file or "", "raw"))
        return tuple(found)

    @cached_property
    def info(self) -> Qcow2Info:
        return Qcow2Info(self.header, self.snapshots, self.bitmaps)

    # -- Extents -------------------------------------------------------------------------------

    @cached_property
    def geometry(self) -> Geometry:
        header = self.header
        return Geometry(
            self.size, header.cluster_bits, header.refcount_bits,
            header.version >= 3 and not header.extended, header.extended, header.external,
            header.crypt_method != 0,
        )  # fmt: skip

    @cached_property
    def reader(self) -> Reader:
        """The image file for C."""
        return Reader(self.source)

    @property
    def l1(self) -> bytes:
        """The L1 table as it is in the file."""
        needed = -(-self.size // (self.block * self.header.clusters_per_table))
        return read_l1(self.source, self.l1_table_offset, min(self.l1_size, needed))

    def extents(self, start: int = 0, stop: int | None = None) -> Extents:
        """This layer alone, whole clusters from the one of `start` to that of `stop`."""
        stop = self.size if stop is None else min(stop, self.size)
        l1 = self.l1
        columns = Columns(self.budget.extents(self._most(start, stop, l1)))
        if start < stop:
            self.geometry.extents(self.reader, l1, self.l1_table_offset, start, stop, columns)
        return Extents(columns)

    def flatten(self, chain: Sequence[Qcow2Layer], start: int, stop: int) -> Extents:
        """A whole `chain` of images of one shape, this the top, merged table by table."""
        tables = [(layer.reader, layer.l1, layer.l1_table_offset) for layer in chain]
        columns = Columns(self.budget.extents(2 + -(-stop // self.block) - start // self.block))
        if start < stop:
            self.geometry.flatten(tables, start, stop, columns)
        return Extents(columns)

    def _most(self, start: int, stop: int, l1: bytes) -> int:
        """An upper bound of the extents of a range: never more than the tables can tell."""
        clusters = max(0, -(-stop // self.block) - start // self.block)
        tables = len(l1) // 8 - l1.count(bytes(8))
        entries = min(clusters, tables * self.header.clusters_per_table)
        return 2 + entries * (32 if self.header.extended else 1) + len(l1) // 8

    @cached_property
    def preallocated(self) -> bool:
        """Whether the file has so many fewer bytes than clusters that QEMU looks for holes."""
        allocated: int | None = getattr(self.source, "allocated", None)
        if allocated is None:
            return False
        clusters = allocated // self.block
        enough = max(clusters * 10 // 9, clusters + 2)
        if enough > -(-self.source.size // self.block):
            return False
        return used(self, enough) >= enough

    # -- Checked and measured --------------------------------------------------------------------

    def check(self) -> CheckResult:
        """Refcounts rebuilt and compared, with snapshots and bitmaps."""
        return check(self)

    # -- Snapshots and bitmaps -------------------------------------------------------------------

    @cached_property
    def _snapshot_table(self) -> tuple[tuple[Snapshot, ...], int]:
        return read_snapshots(self.source, self.header)

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        return self._snapshot_table[0]

    @property
    def snapshot_table_size(self) -> int:
        """Bytes of the table, as far as there are entries in it."""
        return self._snapshot_table[1]

    def snapshot(self, name: str) -> Qcow2Layer:
        """The disk as it was in the snapshot with this id or, if there is none, this name."""
        found = [one for one in self.snapshots if one.id == name]
        found += [one for one in self.snapshots if one.name == name]
        if not found:
            raise ImageError(name_of(self.source), f"has no snapshot {name!r}", format="qcow2")
        return self.at(found[0])

    def at(self, snapshot: Snapshot) -> Qcow2Layer:
        """The disk as it was in `snapshot`."""
        layer = Qcow2Layer(self.source, self.header, self.budget, self._siblings)
        layer.size = self.size if snapshot.size is None else snapshot.size
        layer.l1_table_offset, layer.l1_size = snapshot.l1_table_offset, snapshot.l1_size
        needed = -(-layer.size // (self.block * self.header.clusters_per_table))
        if layer.l1_table_offset % self.block or layer.l1_size < needed:
            raise ImageError(name_of(self.source), f"snapshot {snapshot.id} has no usable L1 table",
                             format="qcow2", table="snapshot table", found=snapshot.l1_size,
                             offset=snapshot.l1_table_offset, expected=needed)  # fmt: skip
        return layer

    @cached_property
    def bitmaps(self) -> tuple[Bitmap, ...]:
        return read_bitmaps(self.source, self.header)

    @property
    def persistent(self) -> tuple[tuple[str, int], ...] | None:
        """Names and granularities of the bitmaps that QEMU would copy; None in version 2."""
        if self.header.version < 3:
            return None
        return tuple((one.name, one.granularity) for one in self.bitmaps if one.consistent)

    def bitmap(self, name: str) -> bytearray:
        """The bits of a persistent bitmap, least significant first: bit i of the result stands
        for bytes [i * granularity, (i + 1) * granularity) of the disk.

        A bitmap that is in use, or older than the disk, may be told wrongly: see
        `Bitmap.consistent`.
        """
        return self._bits(self._bitmap(name))

    def dirty(self, name: str) -> Extents:
        """The ranges of the disk that a persistent bitmap marks, in bytes; neighbours are joined.

        Only `start` and `length` mean anything. What `bitmap` says of other bitmaps holds here.
        """
        bitmap = self._bitmap(name)
        return dirty_ranges(self._bits(bitmap), bitmap, self.header.size, self.budget)

    def _bitmap(self, name: str) -> Bitmap:
        for one in self.bitmaps:
            if one.name == name:
                return one
        raise ImageError(name_of(self.source), f"has no bitmap {name!r}", format="qcow2")

    def _bits(self, bitmap: Bitmap) -> bytearray:
        return read_bits(self.geometry, self.reader, self.header, bitmap, self.budget.memory)

    # -- Compressed clusters ---------------------------------------------------------------------

    def inflate(self, data: bytes, size: int) -> bytes:
        """A compressed cluster unpacked; what follows the stream in its last sector is left."""
        if self.header.compression != "zlib":
            raise UnsupportedError("zstd", "this layer")
        plain = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
        if len(plain) < size:
            raise ImageError(name_of(self.source), "has a compressed cluster that is too short",
                             format="qcow2", found=len(plain), expected=size)  # fmt: skip
        return plain
