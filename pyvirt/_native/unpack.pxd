from libc.stdint cimport uint8_t
from pyvirt._native.columns cimport pv_status

# What the libraries keep from block to block, made when it is needed.
ctypedef struct states:
    void *deflate
    void *zstd

# Unpack to exactly `size` bytes; `context` are the states of one thread.
cdef pv_status unpacked(void *context, int codec, const uint8_t *data, size_t stored,
                        uint8_t *to, size_t size) noexcept nogil

# Unpacks blocks, for one thread at a time.
cdef class Unpacker:
    cdef states raw
