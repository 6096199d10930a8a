"""The door to csrc/pv_crc32c.c."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t

cdef extern from "pv_crc32c.h" nogil:
    ctypedef struct pv_crc32c_tables:
        pass
    void pv_crc32c_prepare(pv_crc32c_tables *)
    uint32_t pv_crc32c(const pv_crc32c_tables *, uint32_t, const uint8_t *, size_t)

cdef pv_crc32c_tables tables
pv_crc32c_prepare(&tables)


def crc32c(data, uint32_t crc=0):
    """The checksum of `data`, or of what `crc` stands for and then `data`."""
    cdef Py_buffer src
    PyObject_GetBuffer(data, &src, PyBUF_SIMPLE)
    try:
        with nogil:
            crc = pv_crc32c(&tables, crc, <const uint8_t *>src.buf, <size_t>src.len)
    finally:
        PyBuffer_Release(&src)
    return crc
