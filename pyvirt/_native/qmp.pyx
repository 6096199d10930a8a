"""The door to csrc/pv_qmp.c: whole QMP messages in a stream of bytes."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt.errors import ProtocolError

cdef extern from "pv_qmp.h" nogil:
    enum: PV_QMP_OK, PV_QMP_MAX_DEPTH
    ctypedef int pv_qmp_status
    ctypedef struct pv_qmp_message:
        uint32_t kind, depth, start, end, value, value_end, id, id_end
    ctypedef struct pv_qmp_state:
        uint64_t unwanted
        uint32_t at, start
    ctypedef struct pv_qmp_limits:
        uint32_t size, depth
    pv_qmp_status pv_qmp_scan(pv_qmp_state *, const pv_qmp_limits *, const uint8_t *, size_t,
                              const uint8_t *, size_t, pv_qmp_message *, size_t,
                              size_t *, size_t *)
    void pv_qmp_moved(pv_qmp_state *)

MAX_DEPTH = PV_QMP_MAX_DEPTH

REASONS = {
    1: "sent a byte that no QMP message has there",
    2: "nested a message deeper than allowed",
    3: "sent a message longer than allowed",
    4: "sent bytes that are not UTF-8",
    5: "sent an object that is neither greeting, reply nor event",
}

cdef enum:
    BATCH = 64
    LARGE = 65536  # bytes worth letting go of the GIL for


@cython.final
cdef class Scanner:
    cdef pv_qmp_state state
    cdef pv_qmp_limits limits
    cdef pv_qmp_message batch[BATCH]
    cdef readonly unsigned long long base  # stream offset of the buffer's first byte
    cdef object peer
    cdef pv_qmp_status status  # a fault, raised once the whole messages before it are handed out
    cdef size_t where

    def __cinit__(self, peer, uint32_t size, uint32_t depth):
        memset(&self.state, 0, sizeof(self.state))
        self.limits.size, self.limits.depth = size, depth
        self.base, self.peer, self.status = 0, peer, PV_QMP_OK

    @property
    def unwanted(self):
        return self.state.unwanted

    @property
    def unfinished(self):
        """Where the message under way begins; all before it is used up."""
        return self.state.start

    def scan(self, buffer, size_t size, bytes wanted):
        """Up to 64 further messages in the first `size` bytes of `buffer`."""
        cdef Py_buffer src
        cdef size_t count = 0, names = 0
        cdef const uint8_t *want = NULL
        if wanted is not None:
            want, names = <const uint8_t *>wanted, len(wanted)
        if self.status != PV_QMP_OK:
            raise ProtocolError(self.peer, REASONS[self.status], self.base + self.where)
        PyObject_GetBuffer(buffer, &src, PyBUF_SIMPLE)
        try:
            if size > <size_t>src.len:
                raise ValueError("size is beyond the buffer")
            if size - self.state.at > LARGE:
                with nogil:
                    self.status = pv_qmp_scan(
                        &self.state, &self.limits, <const uint8_t *>src.buf, size,
                        want, names, self.batch, BATCH, &count, &self.where)
            else:
                self.status = pv_qmp_scan(
                    &self.state, &self.limits, <const uint8_t *>src.buf, size,
                    want, names, self.batch, BATCH, &count, &self.where)
        finally:
            PyBuffer_Release(&src)
        if self.status != PV_QMP_OK and count == 0:
            raise ProtocolError(self.peer, REASONS[self.status], self.base + self.where)
        return [(m.kind, m.start, m.end, m.value, m.value_end, m.id, m.id_end)
                for m in self.batch[:count]]

    def moved(self):
        """The caller dropped everything before `unfinished`."""
        self.base += self.state.start
        pv_qmp_moved(&self.state)
