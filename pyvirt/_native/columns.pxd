from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "pv_image.h" nogil:
    ctypedef enum pv_status:
        PV_OK, PV_CORRUPT, PV_TRUNCATED, PV_IO, PV_FULL, PV_BUSY
    ctypedef struct pv_where:
        uint64_t offset, value
        uint32_t table
    ctypedef struct pv_reader:
        pv_status (*read)(void *, void *, size_t, uint64_t, pv_where *) noexcept nogil
        void *context
        uint64_t size
    ctypedef struct pv_columns:
        uint64_t *start
        uint64_t *length
        uint64_t *host
        uint32_t *stored
        uint16_t *depth
        uint16_t *file
        uint8_t *flags
        size_t room, count

cdef void *address(object owner) except NULL

# Columns of extents in memory of their own: other doors cimport it and fill `raw`.
cdef class Columns:
    cdef pv_columns raw
    cdef object owners  # one mmap for each column

# A source as C reads it: by its file descriptor without the GIL, or by its pread().
cdef class Reader:
    cdef pv_reader raw
    cdef readonly object source
    cdef int fd
    cdef object error  # what the source's pread() raised
    cdef fail(self, pv_status status, pv_where *where, dict tables)
