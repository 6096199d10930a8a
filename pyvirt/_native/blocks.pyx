"""The door to csrc/pv_blocks.c: tables of blocks, decoded into columns of extents."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._native.columns cimport Columns, pv_columns, pv_status, pv_where

cdef extern from "pv_blocks.h" nogil:
    enum:
        PV_BLOCK_SPECIALS, PV_BLOCK_STATES
        DIVIDED_ "PV_DIVIDED", INVALID_ "PV_INVALID"
        OK_ "PV_OK", CORRUPT_ "PV_CORRUPT", TRUNCATED_ "PV_TRUNCATED", FULL_ "PV_FULL"
    ctypedef struct special_t:
        uint64_t entry
        uint8_t flags
    ctypedef struct pv_blocks:
        uint64_t block, base, unit, limit, mask, high_mask, reserved, period
        uint32_t stored
        special_t special[2]
        uint8_t specials, width, shift, high_shift, packed, packed_bits, state_shift, state_mask
        bint big, chained
        uint8_t flags[16]
        uint16_t file
    ctypedef struct pv_blocks_at:
        uint64_t index, guest, end
    ctypedef struct pv_blocks_bitmap:
        uint64_t sector, host
        bint big
        uint8_t set, clear
        uint16_t file
    pv_status pv_blocks_decode(const pv_blocks *, const uint8_t *, uint64_t, size_t,
                               pv_blocks_at *, pv_columns *, pv_where *)
    pv_status pv_blocks_divide(const pv_blocks_bitmap *, const uint8_t *, size_t,
                               pv_blocks_at *, pv_columns *)

DIVIDED, INVALID = DIVIDED_, INVALID_
OK, CORRUPT, TRUNCATED, FULL = OK_, CORRUPT_, TRUNCATED_, FULL_


@cython.final
cdef class Rule:
    """How to read the entries of one table; the fields are those of `pv_blocks`."""

    cdef pv_blocks raw

    def __cinit__(self, *, uint64_t block, uint64_t limit, flags, special=(), uint64_t base=0,
                  uint64_t unit=1, uint64_t mask=0xFFFFFFFFFFFFFFFF, uint64_t high_mask=0,
                  uint64_t reserved=0,
                  uint64_t period=0, uint8_t width=8, bint big=False, bint chained=False,
                  uint8_t shift=0, uint8_t high_shift=0, uint8_t packed=63,
                  uint8_t packed_bits=0, uint8_t state_shift=0, uint8_t state_mask=0,
                  uint16_t file=0, uint32_t stored=0):
        if not (block and unit and width in (4, 8) and packed < 64 and packed_bits < 32
                and shift < 64 and high_shift < 64 and state_shift < 64
                and state_mask < len(flags) <= PV_BLOCK_STATES
                and len(special) <= PV_BLOCK_SPECIALS):
            raise ValueError("no such table of blocks")
        memset(&self.raw, 0, sizeof(self.raw))
        self.raw.block, self.raw.limit, self.raw.base, self.raw.unit = block, limit, base, unit
        self.raw.mask, self.raw.high_mask, self.raw.period = mask, high_mask, period
        self.raw.width, self.raw.big, self.raw.chained = width, big, chained
        self.raw.shift, self.raw.high_shift = shift, high_shift
        self.raw.packed, self.raw.packed_bits = packed, packed_bits
        self.raw.state_shift, self.raw.state_mask = state_shift, state_mask
        self.raw.file, self.raw.specials = file, len(special)
        self.raw.stored, self.raw.reserved = stored, reserved
        for index, (entry, flag) in enumerate(special):
            self.raw.special[index].entry, self.raw.special[index].flags = entry, flag
        for index, flag in enumerate(flags):
            self.raw.flags[index] = flag

    def decode(self, Columns to not None, table, uint64_t first, uint64_t index,
               uint64_t guest, uint64_t end):
        """Decode the entries from `index` on; `table` begins with entry `first`.

        Returns the status, the next entry, the guest offset it maps, and the entry found there.
        """
        cdef Py_buffer src
        cdef pv_blocks_at at = pv_blocks_at(index, guest, end)
        cdef pv_where where
        cdef pv_status status
        cdef size_t count
        where.value = 0
        PyObject_GetBuffer(table, &src, PyBUF_SIMPLE)
        try:
            count = <size_t>src.len // self.raw.width
            if self.raw.chained and count:
                count -= 1
            with nogil:
                status = pv_blocks_decode(&self.raw, <const uint8_t *>src.buf, first, count,
                                          &at, &to.raw, &where)
        finally:
            PyBuffer_Release(&src)
        return status, at.index, at.guest, where.value


def divide(Columns to not None, bitmap, bint big, uint64_t sector, uint64_t host,
           uint8_t set, uint8_t clear, uint64_t index, uint64_t guest, uint64_t end,
           uint16_t file=0):
    """Extents of the sectors whose bits are set, and of those between; the status."""
    cdef Py_buffer src
    cdef pv_blocks_bitmap rule = pv_blocks_bitmap(sector, host, big, set, clear, file)
    cdef pv_blocks_at at = pv_blocks_at(index, guest, end)
    cdef pv_status status
    if not sector:
        raise ValueError("sectors have a size")
    PyObject_GetBuffer(bitmap, &src, PyBUF_SIMPLE)
    try:
        with nogil:
            status = pv_blocks_divide(&rule, <const uint8_t *>src.buf, <size_t>src.len, &at,
                                      &to.raw)
    finally:
        PyBuffer_Release(&src)
    return status
