"""The check of a qcow2 image: refcounts rebuilt from all tables and compared."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, overload

from attrs import field, frozen

from pyvirt._native.qcow2 import FAULTS, TABLES, Refcounts
from pyvirt.errors import BudgetError, ImageError
from pyvirt.image.qcow2.bitmaps import Bitmap
from pyvirt.image.qcow2.snapshots import Snapshot
from pyvirt.image.source import Source, name_of

if TYPE_CHECKING:
    from pyvirt.image.qcow2.layer import Qcow2Layer

_RECORD = struct.Struct("=QQQII")
_TABLE = {name: number for number, name in TABLES.items()}
#: Bytes that the check takes for each cluster of the file.
_CELL = 12
#: Findings that are kept; the others are only counted.
MOST_FINDINGS = 65536


@frozen
class Finding:
    """One thing that is wrong: `fault` in `table`, at byte `offset` of the file."""

    fault: str
    table: str
    offset: int
    #: What is there; of a refcount, the one that is stored.
    found: int
    #: What should be; of a refcount, the number of references.
    expected: int

    def __str__(self) -> str:
        if self.fault in ("leak", "refcount too low"):
            return (
                f"cluster at {self.offset}: refcount {self.found}, references {self.expected}"
            )
        if self.fault == "overlap":
            return (
                f"{self.table} at {self.offset}: refers to {self.found}, "
                f"which the {TABLES[self.expected]} uses"
            )
        if self.table == "cluster":
            return f"cluster at {self.offset}: {self.fault}"
        return f"{self.table} at {self.offset}: {self.fault}, found {self.found:#x}"


class Findings(Sequence[Finding]):
    """Findings as packed records; objects are built when someone looks."""

    def __init__(self, records: memoryview) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records) // _RECORD.size

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, index: int | slice) -> Finding | tuple[Finding, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        at = index % len(self) * _RECORD.size
        offset, found, expected, fault, table = _RECORD.unpack_from(self.records, at)
        return Finding(FAULTS[fault], TABLES[table], offset, found, expected)

    def __repr__(self) -> str:
        return f"<{len(self)} findings{': ' + str(self[0]) if len(self) else ''}>"


@frozen(kw_only=True)
class CheckResult:
    """What `qemu-img check` counts, and where each fault is."""

    corruptions: int
    leaks: int
    #: Clusters that two things use which cannot share one; QEMU sees only wrong refcounts.
    overlaps: int
    total_clusters: int
    allocated_clusters: int
    fragmented_clusters: int
    compressed_clusters: int
    #: Behind the last cluster that is in use, in bytes.
    image_end_offset: int
    #: Faults that are counted and no longer listed.
    findings_lost: int
    findings: Sequence[Finding] = field(repr=False)

    @property
    def ok(self) -> bool:
        return not (self.corruptions or self.leaks)

    @property
    def exit_code(self) -> int:
        """That of ``qemu-img check``: 2 for corruptions, 3 for leaks alone."""
        return 2 if self.corruptions else 3 if self.leaks else 0


def refcounts(layer: Qcow2Layer, findings: int = 0) -> Refcounts:
    """The refcount table of an image, ready to be worked on; takes 12 bytes for a cluster."""
    header = layer.header
    clusters = -(-layer.source.size // header.cluster_size)
    if clusters * _CELL > layer.budget.memory:
        raise BudgetError(f"the check of {name_of(layer.source)}", layer.budget.memory)
    table, offset = refcount_table(layer), header.refcount_table_offset
    return Refcounts(layer.geometry, layer.reader, table, offset, clusters, findings)


def used(layer: Qcow2Layer, enough: int) -> int:
    """How many clusters of the file have a refcount; counting ends at `enough`."""
    clusters = -(-layer.source.size // layer.header.cluster_size)
    return layer.geometry.used(layer.reader, refcount_table(layer), clusters, enough)


def refcount_table(layer: Qcow2Layer) -> bytes:
    """The table as far as the file has it, and zeros."""
    header = layer.header
    size = header.refcount_table_clusters * header.cluster_size
    return padded(layer.source, size, header.refcount_table_offset)


def padded(source: Source, size: int, offset: int) -> bytes:
    """`size` bytes at `offset`; zeros behind the end of the file, which is found elsewhere."""
    return source.pread(size, offset).ljust(size, b"\0")


def check(layer: Qcow2Layer) -> CheckResult:
    """Check the whole image of `layer`, with its snapshots and bitmaps, as `qemu-img check` does.

    An L2 table that several L1 entries name is scanned once, so that no file can ask for more
    work than its size: its clusters are referred to as often as it is named, but each fault in
    it is one finding, and its clusters are allocated (and fragmented) once. QEMU, which scans it
    for each of its names, counts these as often.
    """
    work = _Check(layer)
    work.run()
    return work.result()


class _Check:
    def __init__(self, layer: Qcow2Layer) -> None:
        self.layer, self.header, self.source = layer, layer.header, layer.source
        self.counts = refcounts(layer, MOST_FINDINGS)
        self.extra: list[Finding] = []
        # Other programs may share L1 tables; none needs more than a few times the file.
        self.left = 4 * self.source.size + (64 << 20)

    def run(self) -> None:
        self.counts.stored()
        self.mark("header", 0, self.header.cluster_size)
        tables = list(self.tables())
        for offset, entries, _ in tables:
            self.mark("L1 table", offset, entries * 8)
            self.counts.l1(self.read(offset, entries), offset)
        self.fixed()
        for offset, entries, active in tables:
            self.counts.l2(self.read(offset, entries), offset, active)
        self.counts.blocks()
        self.counts.compare()

    def mark(self, table: str, offset: int, size: int) -> None:
        self.counts.mark(offset, size, _TABLE[table])

    def tables(self) -> list[tuple[int, int, bool]]:
        """The L1 tables that can be read: offset, entries, whether it is the active one."""
        header = self.header
        found = [(header.l1_table_offset, header.l1_size, True)]
        if header.external and header.nb_snapshots:
            self.find("snapshots with a data file", "header", 60, header.nb_snapshots)
        for one in self.snapshots:
            if one.l1_table_offset % header.cluster_size:
                self.find("misaligned", "snapshot table", one.l1_table_offset, one.l1_table_offset)
            elif one.l1_table_offset + one.l1_size * 8 > self.source.size:
                self.find("outside the file", "snapshot table", one.l1_table_offset, one.l1_size)
            else:
                found.append((one.l1_table_offset, one.l1_size, False))
        return found

    @cached_property
    def snapshots(self) -> Sequence[Snapshot]:
        """Those of a table that can be read; one that cannot is a fault as any other."""
        try:
            return self.layer.snapshots
        except ImageError as error:
            place = self.header.snapshots_offset
            self.find("unreadable", "snapshot table", error.offset or place, place)
            return ()

    def read(self, offset: int, entries: int) -> bytes:
        self.left -= entries * 8
        if self.left < 0:
            raise ImageError(name_of(self.source), "asks for more work than its size explains",
                             format="qcow2", table="L1 table", offset=offset)  # fmt: skip
        return padded(self.source, entries * 8, offset) if entries else b""

    def fixed(self) -> None:
        """References by everything of which there is one, and by bitmaps."""
        header = self.header
        if self.snapshots:
            self.mark("snapshot table", header.snapshots_offset, self.layer.snapshot_table_size)
        size = header.refcount_table_clusters * header.cluster_size
        self.mark("refcount table", header.refcount_table_offset, size)
        if header.crypto is not None:
            self.mark("encryption header", header.crypto.offset, header.crypto.length)
        if header.bitmaps is not None:
            self.mark("bitmap directory", header.bitmaps.bitmap_directory_offset,
                      header.bitmaps.bitmap_directory_size)  # fmt: skip
        for bitmap in self.layer.bitmaps:
            self.bitmap(bitmap)

    def bitmap(self, bitmap: Bitmap) -> None:
        size = bitmap.bitmap_table_size * 8
        self.mark("bitmap table", bitmap.bitmap_table_offset, size)
        if bitmap.bitmap_table_offset + size <= self.source.size:
            table = self.read(bitmap.bitmap_table_offset, bitmap.bitmap_table_size)
            self.counts.bitmap(table, bitmap.bitmap_table_offset)

    def find(self, fault: str, table: str, offset: int, found: int) -> None:
        self.extra.append(Finding(fault, table, offset, found, 0))

    def result(self) -> CheckResult:
        counts = self.counts.counts()
        counts["corruptions"] += len(self.extra)
        findings: Sequence[Finding] = Findings(self.counts.findings())
        if self.extra:
            findings = (*self.extra, *findings)
        total = -(-self.header.size // self.header.cluster_size)
        return CheckResult(**counts, total_clusters=total, findings=findings)
