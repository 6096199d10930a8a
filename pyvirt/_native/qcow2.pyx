"""The doors to csrc/pv_qcow2_*.c: extents, and reference counts that are rebuilt."""

import mmap

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._native.columns cimport (Columns, Reader, PV_OK, address, pv_columns, pv_reader,
                                     pv_status, pv_where)

from pyvirt._native.columns import PRIVATE
from pyvirt.errors import BudgetError

cdef extern from "pv_qcow2.h" nogil:
    ctypedef struct pv_qcow2:
        uint64_t size
        uint8_t cluster_bits, refcount_bits
        bint zero_flag, extended, external, encrypted
    pv_status pv_qcow2_extents(const pv_qcow2 *, const pv_reader *, const uint8_t *, size_t,
                               uint64_t, uint64_t, uint64_t, uint8_t *, pv_columns *, pv_where *)

    ctypedef struct pv_qcow2_layer:
        const pv_reader *reader
        const uint8_t *l1
        size_t entries
        uint64_t l1_offset
    pv_status pv_qcow2_flatten(const pv_qcow2 *, const pv_qcow2_layer *, size_t, uint64_t,
                               uint64_t, uint8_t *, pv_columns *, size_t *, pv_where *)

    pv_status pv_qcow2_bitmap(const pv_qcow2 *, const pv_reader *, const uint8_t *, size_t,
                              uint64_t, uint8_t *, size_t, pv_where *)
    pv_status pv_qcow2_dirty(const uint8_t *, size_t, unsigned, uint64_t, pv_columns *)

cdef extern from "pv_qcow2_check.h" nogil:
    ctypedef struct pv_qcow2_cell:
        uint32_t stored, found
    ctypedef struct pv_qcow2_finding:
        uint64_t offset, found, expected
        uint32_t fault, table
    ctypedef struct pv_qcow2_check:
        pv_qcow2 image
        const pv_reader *reader
        pv_where where
        pv_qcow2_cell *cells
        uint32_t *shared
        uint8_t *table
        uint64_t room, clusters
        const uint8_t *refcount_table
        uint64_t refcount_entries, refcount_offset
        pv_qcow2_finding *findings
        uint64_t findings_room, findings_count, findings_lost
        uint64_t corruptions, leaks, overlaps, allocated, fragmented, compressed, end_offset
    pv_status pv_qcow2_check_stored(pv_qcow2_check *)
    void pv_qcow2_check_mark(pv_qcow2_check *, uint64_t, uint64_t, int)
    void pv_qcow2_check_bitmap(pv_qcow2_check *, const uint8_t *, size_t, uint64_t)
    void pv_qcow2_check_l1(pv_qcow2_check *, const uint8_t *, size_t, uint64_t)
    pv_status pv_qcow2_check_l2(pv_qcow2_check *, const uint8_t *, size_t, uint64_t, bint)
    void pv_qcow2_check_blocks(pv_qcow2_check *)
    void pv_qcow2_check_compare(pv_qcow2_check *)
    pv_status pv_qcow2_used(pv_qcow2_check *, uint64_t, uint64_t *)

cdef enum:
    LAYERS = 1024  # of a chain at most

#: The tables of an image, as faults number them.
TABLES = {
    1: "header", 2: "L1 table", 3: "L2 table", 4: "refcount table", 5: "refcount block",
    6: "snapshot table", 7: "bitmap directory", 8: "bitmap table", 9: "bitmap",
    10: "encryption header", 11: "data",
}


#: What can be wrong with an image.
FAULTS = {
    1: "leak", 2: "refcount too low", 3: "overlap", 4: "outside the file", 5: "misaligned",
    6: "reserved bits", 7: "wrong COPIED flag", 8: "refcount overflow",
    9: "shared refcount block", 10: "impossible L2 entry",
}


cdef class Geometry:
    """What C must know of an image's header."""

    cdef pv_qcow2 raw

    def __cinit__(self, uint64_t size, uint8_t cluster_bits, uint8_t refcount_bits,
                  bint zero_flag, bint extended, bint external, bint encrypted):
        self.raw.size, self.raw.cluster_bits = size, cluster_bits
        self.raw.refcount_bits, self.raw.zero_flag = refcount_bits, zero_flag
        self.raw.extended, self.raw.external = extended, external
        self.raw.encrypted = encrypted

    def extents(self, Reader reader, l1, uint64_t l1_offset, uint64_t start, uint64_t stop,
                Columns to):
        """Fill `to` with the extents of guest bytes [start, stop)."""
        cdef Py_buffer entries
        cdef bytearray table = bytearray(1 << self.raw.cluster_bits)
        cdef uint8_t *lent = <uint8_t *><char *>table
        cdef pv_where where
        cdef pv_status status
        PyObject_GetBuffer(l1, &entries, PyBUF_SIMPLE)
        try:
            with nogil:
                status = pv_qcow2_extents(
                    &self.raw, &reader.raw, <const uint8_t *>entries.buf, entries.len // 8,
                    l1_offset, start, stop, lent, &to.raw, &where)
        finally:
            PyBuffer_Release(&entries)
        if status != PV_OK:
            reader.fail(status, &where, TABLES)

    def flatten(self, layers, uint64_t start, uint64_t stop, Columns to):
        """Fill `to` with the extents of a chain: its (reader, L1 table, its offset), top first."""
        cdef pv_qcow2_layer chain[LAYERS]
        cdef size_t count = len(layers), at = 0
        cdef Reader reader
        cdef bytes l1
        cdef pv_where where
        cdef pv_status status
        if count > LAYERS:
            raise ValueError("too many layers")
        for i, (reader, l1, offset) in enumerate(layers):
            chain[i].reader, chain[i].l1 = &reader.raw, l1
            chain[i].entries, chain[i].l1_offset = len(l1) // 8, offset
        lent = mmap.mmap(-1, 3 << self.raw.cluster_bits, flags=PRIVATE)
        cdef uint8_t *memory = <uint8_t *>address(lent)
        with nogil:
            status = pv_qcow2_flatten(&self.raw, chain, count, start, stop, memory, &to.raw,
                                      &at, &where)
        if status != PV_OK:
            (<Reader>layers[at][0]).fail(status, &where, TABLES)

    def used(self, Reader reader, bytes refcount_table, uint64_t clusters, uint64_t enough):
        """How many clusters of the file have a refcount; counting ends at `enough`."""
        cdef pv_qcow2_check check
        cdef bytearray table = bytearray(1 << self.raw.cluster_bits)
        cdef pv_status status
        cdef uint64_t used = 0
        memset(&check, 0, sizeof(check))
        check.image, check.reader, check.clusters = self.raw, &reader.raw, clusters
        check.table = <uint8_t *><char *>table
        check.refcount_table = <const uint8_t *>refcount_table
        check.refcount_entries = len(refcount_table) // 8
        with nogil:
            status = pv_qcow2_used(&check, enough, &used)
        if status != PV_OK:
            reader.fail(status, &check.where, TABLES)
        return used

    def bitmap(self, Reader reader, bytes table, uint64_t table_offset, bytearray bits):
        """Fill `bits` with those of the persistent bitmap that has this table."""
        cdef const uint8_t *entries = table
        cdef uint8_t *to = <uint8_t *><char *>bits
        cdef size_t count = len(table) // 8, size = len(bits)
        cdef pv_where where
        cdef pv_status status
        with nogil:
            status = pv_qcow2_bitmap(&self.raw, &reader.raw, entries, count, table_offset, to,
                                     size, &where)
        if status != PV_OK:
            reader.fail(status, &where, TABLES)


def dirty(bits, unsigned granularity_bits, uint64_t end, Columns to):
    """Fill `to` with starts and lengths of the runs of set bits, up to guest byte `end`."""
    cdef Py_buffer view
    cdef pv_status status
    PyObject_GetBuffer(bits, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            status = pv_qcow2_dirty(<const uint8_t *>view.buf, view.len, granularity_bits, end,
                                    &to.raw)
    finally:
        PyBuffer_Release(&view)
    if status != PV_OK:
        raise BudgetError("the dirty ranges", to.raw.room * 29)


cdef class Refcounts:
    """Refcounts of an image, rebuilt step by step; see csrc/pv_qcow2_check.h."""

    cdef pv_qcow2_check raw
    cdef Reader reader
    cdef list owners

    def __cinit__(self, Geometry image, Reader reader, bytes refcount_table,
                  uint64_t refcount_offset, uint64_t clusters, size_t findings):
        self.raw.image, self.reader = image.raw, reader
        self.raw.reader = &reader.raw
        self.raw.clusters, self.raw.room = clusters, clusters + 1
        self.raw.refcount_table = <const uint8_t *>refcount_table
        self.raw.refcount_entries = len(refcount_table) // 8
        self.raw.refcount_offset = refcount_offset
        self.raw.findings_room = findings
        sizes = (8 * (clusters + 1), 4 * (clusters + 1), 1 << image.raw.cluster_bits,
                 max(1, findings * sizeof(pv_qcow2_finding)))
        self.owners = [mmap.mmap(-1, size, flags=PRIVATE) for size in sizes]
        self.owners.append(refcount_table)
        if len(self.owners[0]) >= 1 << 21:
            self.owners[0].madvise(mmap.MADV_HUGEPAGE)
        self.raw.cells = <pv_qcow2_cell *>address(self.owners[0])
        self.raw.shared = <uint32_t *>address(self.owners[1])
        self.raw.table = <uint8_t *>address(self.owners[2])
        self.raw.findings = <pv_qcow2_finding *>address(self.owners[3])

    cdef done(self, pv_status status):
        if status != PV_OK:
            self.reader.fail(status, &self.raw.where, TABLES)

    def stored(self):
        cdef pv_status status
        with nogil:
            status = pv_qcow2_check_stored(&self.raw)
        self.done(status)

    def mark(self, uint64_t offset, uint64_t size, int owner):
        pv_qcow2_check_mark(&self.raw, offset, size, owner)

    def bitmap(self, bytes table, uint64_t offset):
        pv_qcow2_check_bitmap(&self.raw, table, len(table) // 8, offset)

    def l1(self, bytes table, uint64_t offset):
        pv_qcow2_check_l1(&self.raw, table, len(table) // 8, offset)

    def l2(self, bytes table, uint64_t offset, bint active):
        cdef pv_status status
        cdef const uint8_t *entries = table
        cdef size_t count = len(table) // 8
        with nogil:
            status = pv_qcow2_check_l2(&self.raw, entries, count, offset, active)
        self.done(status)

    def blocks(self):
        pv_qcow2_check_blocks(&self.raw)

    def compare(self):
        with nogil:
            pv_qcow2_check_compare(&self.raw)

    def counts(self):
        return {
            "corruptions": self.raw.corruptions, "leaks": self.raw.leaks,
            "overlaps": self.raw.overlaps, "allocated_clusters": self.raw.allocated,
            "fragmented_clusters": self.raw.fragmented,
            "compressed_clusters": self.raw.compressed, "image_end_offset": self.raw.end_offset,
            "findings_lost": self.raw.findings_lost,
        }

    def findings(self):
        """Packed records: offset, found, expected (uint64), fault, table (uint32)."""
        return memoryview(self.owners[3])[:self.raw.findings_count * sizeof(pv_qcow2_finding)]
