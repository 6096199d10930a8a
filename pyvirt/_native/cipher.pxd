from libc.stdint cimport uint8_t, uint32_t, uint64_t
from pyvirt._native.columns cimport pv_status

ctypedef struct secret:
    void *kind
    void *salt_kind
    const uint8_t *key
    const uint8_t *salt
    uint32_t sector
    int iv

# Decrypt whole sectors in place; `cipher` is the `raw` of a Cipher.
cdef pv_status decrypted(void *context, void *cipher, uint8_t *data, size_t size,
                         uint64_t place) noexcept nogil

# A key with its mode; any number of threads may use it at once.
cdef class Cipher:
    cdef secret raw
    cdef tuple keys
