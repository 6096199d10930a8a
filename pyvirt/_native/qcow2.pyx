"""The doors to csrc/pv_qcow2_*.c: extents, and reference counts that are rebuilt."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._native.columns cimport (Columns, Reader, PV_OK, pv_columns, pv_reader, pv_status,
                                     pv_where)

cdef extern from "pv_qcow2.h" nogil:
    ctypedef struct pv_qcow2:
        uint64_t size
        uint8_t cluster_bits, refcount_bits
        bint zero_flag, extended, external, encrypted
    pv_status pv_qcow2_extents(const pv_qcow2 *, const pv_reader *, const uint8_t *, size_t,
                               uint64_t, uint64_t, uint64_t, uint8_t *, pv_columns *, pv_where *)

#: The tables of an image, as faults number them.
TABLES = {
    1: "header", 2: "L1 table", 3: "L2 table", 4: "refcount table", 5: "refcount block",
    6: "snapshot table", 7: "bitmap directory", 8: "bitmap table", 9: "bitmap",
    10: "encryption header", 11: "data",
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
