from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<stdbool.h>" nogil:
    ctypedef bint truth "bool"

cdef extern from "pv_vring.h" nogil:
    ctypedef enum pv_ring_status:
        PV_RING_OK, PV_RING_MEMORY, PV_RING_SIZE, PV_RING_HEAD, PV_RING_LOOP, PV_RING_TABLE
        PV_RING_NESTED, PV_RING_BOTH, PV_RING_UNREADY, PV_RING_CUT, PV_RING_FULL
    ctypedef struct pv_ring_where:
        uint64_t address, found, expected
    ctypedef struct pv_region:
        uint64_t guest, size
        const uint8_t *at
    ctypedef struct pv_memory:
        const pv_region *regions
        size_t count
        truth (*read)(void *, size_t, uint64_t, void *, size_t) noexcept nogil
        void *context
    ctypedef struct pv_ring:
        uint64_t desc, driver, device, features
        uint32_t size
        uint8_t packed
    ctypedef struct pv_desc:
        uint64_t address
        uint32_t length
        uint16_t flags, id
    ctypedef struct pv_queue:
        pv_ring ring
        const pv_memory *memory
        const uint8_t *desc
        const uint8_t *driver
        const uint8_t *device
    ctypedef struct pv_ring_sample:
        uint16_t avail_idx, used_idx, in_flight, bits
    ctypedef struct pv_ring_state:
        pv_ring_sample indexes
        uint16_t avail_flags, used_flags, used_event, avail_event
    ctypedef struct pv_chain:
        uint64_t readable, writable
        uint32_t count
        uint16_t slots, id
        uint32_t first, status

# What the bytes are read from where they cannot be mapped.
cdef struct Files:
    int *fds
    uint64_t *offsets
    size_t count
    int fault  # errno of the last read that failed

# Guest memory as C reads it. Who works without the GIL calls `begin` before and `done` after.
cdef class Memory:
    cdef pv_memory raw   # for rings: what can be mapped is
    cdef pv_memory bulk  # for large reads, which must not make the host allocate what they touch
    cdef pv_region *regions
    cdef pv_region *unmapped
    cdef Files files
    cdef object views    # memoryviews that hold the buffers
    cdef object gone     # the error of every further call
    cdef int busy
    cdef object __weakref__
    cdef int begin(self) except -1
    cdef void done(self) noexcept
    cdef void let_go(self) noexcept
    cdef fill(self, uint64_t guest, char *to, size_t size)
    cdef refuse(self, uint64_t guest, uint64_t size)

# One ring in it. `last` is its state when it was looked at last.
cdef class Queue:
    cdef pv_queue raw
    cdef pv_ring_state last
    cdef readonly Memory memory
    cdef readonly object device, queue
    cdef fail(self, pv_ring_status status, pv_ring_where *where)
