"""The doors to csrc/pv_vring.c: guest memory, and virtqueues in it."""

from cpython.buffer cimport (PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release,
                             PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EINTR, EIO, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset
from posix.types cimport off_t

from pyvirt.errors import AddressError, RingError, own

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int, void *, size_t, off_t)
    int close(int)

cdef extern from "<fcntl.h>" nogil:
    int fcntl(int, int, ...)
    int F_DUPFD_CLOEXEC

cdef extern from "pv_vring.h" nogil:
    bint pv_memory_read(const pv_memory *, uint64_t, void *, size_t)
    uint64_t pv_memory_reach(const pv_memory *, uint64_t, uint64_t)
    pv_ring_status pv_queue_open(const pv_memory *, const pv_ring *, pv_queue *, pv_ring_where *)
    void pv_ring_sample_all(const pv_queue *, size_t, pv_ring_sample *)
    void pv_ring_look(const pv_queue *, pv_ring_state *)
    pv_ring_status pv_ring_chain(const pv_queue *, uint16_t, bint, pv_desc *, size_t, pv_chain *,
                                 pv_ring_where *)
    size_t pv_ring_walk(const pv_queue *, uint16_t, uint16_t, bint, pv_chain *, size_t, pv_desc *,
                        size_t, size_t *)

cdef enum:
    SMALL = 4096      # bytes that are read through the mapping where there is one
    SHORT = 256       # descriptors that most chains have at most
    LONG = 2 * 32768  # no chain has more: a whole ring, then a whole indirect table
    TRIES = 8
    KNOWN = 8         # PV_STATE_USED_KNOWN

#: What a chain can be broken by, as C numbers it.
REASONS = {
    1: "the ring points outside guest memory", 2: "a ring cannot have so many entries",
    3: "a descriptor is named that its table does not have", 4: "a chain loops",
    5: "an indirect table has an impossible length", 6: "an indirect table holds another",
    7: "a descriptor is indirect and has a next one", 8: "no chain is available in this slot",
    9: "a chain goes on into a slot that is not available",
}

SAMPLE_SIZE = sizeof(pv_ring_sample)
STATE_SIZE = sizeof(pv_ring_state)
CHAIN_SIZE = sizeof(pv_chain)
DESC_SIZE = sizeof(pv_desc)


cdef truth read_file(void *context, size_t region, uint64_t offset, void *to,
                     size_t size) noexcept nogil:
    cdef Files *files = <Files *>context
    cdef size_t got = 0
    cdef ssize_t step
    while got < size:
        step = pread(files.fds[region], <char *>to + got, size - got,
                     <off_t>(files.offsets[region] + offset + got))
        if step < 0 and errno == EINTR:
            continue
        if step <= 0:
            files.fault = errno if step < 0 else EIO
            return False
        got += step
    return True


cdef class Memory:
    """Regions: (guest address, size, buffer or None, file descriptor or -1, its offset).

    Descriptors are duplicated; those that were given stay the caller's.
    """

    def __cinit__(self, regions):
        cdef size_t count = len(regions), i
        cdef Py_buffer view
        self.views, self.gone = [], None
        self.regions = <pv_region *>calloc(count + 1, sizeof(pv_region))
        self.unmapped = <pv_region *>calloc(count + 1, sizeof(pv_region))
        self.files.fds = <int *>calloc(count + 1, sizeof(int))
        self.files.offsets = <uint64_t *>calloc(count + 1, sizeof(uint64_t))
        if not self.regions or not self.unmapped or not self.files.fds or not self.files.offsets:
            raise MemoryError
        for i, (guest, size, buffer, fd, offset) in enumerate(regions):
            self.regions[i].guest, self.regions[i].size = guest, size
            self.files.fds[i], self.files.offsets[i] = -1, offset
            self.files.count = i + 1
            if fd >= 0:
                self.files.fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3)
                if self.files.fds[i] < 0:
                    raise OSError(errno, "a file of guest memory could not be kept open")
            if buffer is not None:
                held = memoryview(buffer).cast("B")
                if <uint64_t>len(held) < <uint64_t>size:
                    raise ValueError("a buffer is smaller than its region")
                PyObject_GetBuffer(held, &view, PyBUF_SIMPLE)
                self.regions[i].at = <const uint8_t *>view.buf
                PyBuffer_Release(&view)
                self.views.append(held)
            elif fd < 0:
                raise ValueError("a region has neither a buffer nor a file")
            self.unmapped[i] = self.regions[i]
            if fd >= 0:
                self.unmapped[i].at = NULL
        self.raw.regions, self.raw.count = self.regions, count
        self.raw.read, self.raw.context = read_file, &self.files
        self.bulk = self.raw
        self.bulk.regions = self.unmapped

    def __dealloc__(self):
        self.let_go()
        free(self.regions)
        free(self.unmapped)
        free(self.files.fds)
        free(self.files.offsets)

    cdef void let_go(self) noexcept:
        cdef size_t i
        for i in range(self.files.count):
            if self.files.fds[i] >= 0:
                close(self.files.fds[i])
                self.files.fds[i] = -1
        self.views = None

    cdef int begin(self) except -1:
        if self.gone is not None:
            raise own(self.gone)
        self.busy += 1
        return 0

    cdef void done(self) noexcept:
        self.busy -= 1
        if self.busy == 0 and self.gone is not None:
            self.let_go()

    def end(self, error):
        """No call reads any more: each raises `error`. Buffers are let go when none is reading."""
        if self.gone is None:
            self.gone = error
            if self.busy == 0:
                self.let_go()

    def reach(self, uint64_t guest, uint64_t size):
        """How many bytes from `guest` on are memory, at most `size`."""
        return pv_memory_reach(&self.raw, guest, size)

    def read(self, uint64_t guest, size_t size):
        """A copy of `size` bytes."""
        if self.gone is None and pv_memory_reach(&self.raw, guest, size) < size:
            self.refuse(guest, size)
        cdef bytes copy = PyBytes_FromStringAndSize(NULL, size)
        self.fill(guest, PyBytes_AS_STRING(copy), size)
        return copy

    def readinto(self, uint64_t guest, buffer):
        """Fill `buffer`."""
        cdef Py_buffer view
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            self.fill(guest, <char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef fill(self, uint64_t guest, char *to, size_t size):
        cdef const pv_memory *way = &self.raw if size <= SMALL else &self.bulk
        cdef bint there
        self.begin()
        try:
            if size <= SMALL:
                there = pv_memory_read(way, guest, to, size)
            else:
                with nogil:
                    there = pv_memory_read(way, guest, to, size)
        finally:
            self.done()
        if not there:
            self.refuse(guest, size)

    cdef refuse(self, uint64_t guest, uint64_t size):
        cdef uint64_t reach = pv_memory_reach(&self.raw, guest, size)
        cdef size_t i
        if reach == size and self.files.fault:
            raise OSError(self.files.fault, "guest memory could not be read from its file")
        hole, end = int(guest) + int(reach), None
        for i in range(self.raw.count):
            if self.regions[i].guest > guest + reach:
                end = self.regions[i].guest
                break
        raise AddressError(guest, size, hole=hole, end=end)


cdef class Queue:
    """One ring: its addresses and size, and whose it is."""

    def __cinit__(self, Memory memory, uint64_t desc, uint64_t driver, uint64_t device_area,
                  uint64_t features, uint32_t size, bint packed, device=None, queue=None):
        cdef pv_ring ring
        cdef pv_ring_where where
        cdef pv_ring_status status
        self.memory, self.device, self.queue = memory, device, queue
        memset(&self.last, 0, sizeof(self.last))
        ring.desc, ring.driver, ring.device = desc, driver, device_area
        ring.features, ring.size, ring.packed = features, size, packed
        status = pv_queue_open(&memory.raw, &ring, &self.raw, &where)
        if status != PV_RING_OK:
            self.fail(status, &where)

    cdef fail(self, pv_ring_status status, pv_ring_where *where):
        if status == PV_RING_MEMORY and self.memory.files.fault:
            raise OSError(self.memory.files.fault, "guest memory could not be read from its file")
        expected = where.expected if status in (PV_RING_SIZE, PV_RING_HEAD, PV_RING_TABLE) else None
        raise RingError(REASONS[status], place=where.address, found=where.found,
                        expected=f"at most {expected}" if status == PV_RING_TABLE
                        or status == PV_RING_SIZE else
                        None if expected is None else f"below {expected}",
                        device=self.device, queue=self.queue)

    def know(self, uint16_t used, bint wrap):
        """A packed ring's device writes next to slot `used`, in the lap of `wrap`."""
        self.last.indexes.used_idx = used
        self.last.indexes.bits = KNOWN | (32 if wrap else 0)
        self.last.indexes.avail_idx = 0xffff

    def look(self):
        """The state, packed: see pv_ring_state."""
        if self.memory.gone is not None:
            raise own(self.memory.gone)
        pv_ring_look(&self.raw, &self.last)
        return PyBytes_FromStringAndSize(<char *>&self.last, sizeof(self.last))

    def areas(self):
        """The state, and copies of descriptor, driver and device area of the same moment.

        The last item is whether the ring moved meanwhile, in each of some tries.
        """
        cdef pv_ring_state before
        cdef uint32_t size = self.raw.ring.size
        cdef bint packed = self.raw.ring.packed
        cdef size_t event = 2 if self.raw.ring.features & (1 << 29) else 0
        cdef bytes desc = PyBytes_FromStringAndSize(NULL, 16 * size)
        cdef bytes driver = PyBytes_FromStringAndSize(
            NULL, 4 if packed else 4 + 2 * size + event)
        cdef bytes device = PyBytes_FromStringAndSize(
            NULL, 4 if packed else 4 + 8 * size + event)
        cdef const pv_memory *memory = &self.memory.raw
        cdef char *to[3]
        cdef size_t sizes[3]
        cdef bint there = True, same = False
        cdef int tries = TRIES
        to[0], to[1], to[2] = <char *>desc, <char *>driver, <char *>device
        sizes[0], sizes[1], sizes[2] = len(desc), len(driver), len(device)
        self.memory.begin()
        try:
            with nogil:
                while tries > 0 and not same:
                    tries -= 1
                    pv_ring_look(&self.raw, &self.last)
                    before = self.last
                    there = (pv_memory_read(memory, self.raw.ring.desc, to[0], sizes[0]) and
                             pv_memory_read(memory, self.raw.ring.driver, to[1], sizes[1]) and
                             pv_memory_read(memory, self.raw.ring.device, to[2], sizes[2]))
                    pv_ring_look(&self.raw, &self.last)
                    same = not memcmp(&before.indexes, &self.last.indexes, sizeof(before.indexes))
        finally:
            self.memory.done()
        if not there:
            raise RingError(REASONS[1], place=self.raw.ring.desc, device=self.device,
                            queue=self.queue)
        return (PyBytes_FromStringAndSize(<char *>&before, sizeof(before)), desc, driver, device,
                not same)

    def chain(self, uint16_t head, bint wrap):
        """Of one chain the record (see pv_chain), and its descriptors, 16 bytes each."""
        cdef pv_desc few[SHORT]
        cdef pv_desc *out = few
        cdef pv_chain chain
        cdef pv_ring_where where
        cdef pv_ring_status status
        self.memory.begin()
        try:
            status = pv_ring_chain(&self.raw, head, wrap, out, SHORT, &chain, &where)
            if status == PV_RING_FULL:
                out = <pv_desc *>calloc(LONG, sizeof(pv_desc))
                if out == NULL:
                    raise MemoryError
                with nogil:
                    status = pv_ring_chain(&self.raw, head, wrap, out, LONG, &chain, &where)
            if status != PV_RING_OK:
                self.fail(status, &where)
            return (PyBytes_FromStringAndSize(<char *>&chain, sizeof(chain)),
                    PyBytes_FromStringAndSize(<char *>out, chain.count * sizeof(pv_desc)))
        finally:
            self.memory.done()
            if out != few:
                free(out)

    def walk(self, uint16_t start, uint16_t stop, bint wrap, chains, descs):
        """Chains of avail indexes [start, stop), or of slots from `start` on, into two buffers.

        Returns how many chains and how many descriptors they got; see pv_ring_walk.
        """
        cdef Py_buffer to, out
        cdef size_t count, used = 0
        PyObject_GetBuffer(chains, &to, PyBUF_WRITABLE)
        try:
            PyObject_GetBuffer(descs, &out, PyBUF_WRITABLE)
            try:
                if <size_t>to.buf % 8 or <size_t>out.buf % 8:
                    raise ValueError("the lent buffers must be aligned to 8 bytes")
                self.memory.begin()
                try:
                    with nogil:
                        count = pv_ring_walk(
                            &self.raw, start, stop, wrap, <pv_chain *>to.buf,
                            to.len // sizeof(pv_chain), <pv_desc *>out.buf,
                            out.len // sizeof(pv_desc), &used)
                finally:
                    self.memory.done()
            finally:
                PyBuffer_Release(&out)
        finally:
            PyBuffer_Release(&to)
        return count, used


cdef class Queues:
    """Many rings, sampled in one call."""

    cdef pv_queue *raw
    cdef size_t count
    cdef list held  # the Queues: their memory must stay
    cdef list memories

    def __cinit__(self, queues):
        cdef Queue queue
        self.held = list(queues)
        self.memories = []
        self.count = len(self.held)
        self.raw = <pv_queue *>calloc(self.count + 1, sizeof(pv_queue))
        if self.raw == NULL:
            raise MemoryError
        for i in range(self.count):
            queue = self.held[i]
            self.raw[i] = queue.raw
            if not any(queue.memory is memory for memory in self.memories):
                self.memories.append(queue.memory)

    def __dealloc__(self):
        free(self.raw)

    def __len__(self):
        return self.count

    def sample(self, samples):
        """The indexes of all, 8 bytes each, into `samples`, which holds those before (or zeros)."""
        cdef Py_buffer to
        cdef Memory memory
        cdef list begun = []
        PyObject_GetBuffer(samples, &to, PyBUF_WRITABLE)
        try:
            if <size_t>to.len < self.count * sizeof(pv_ring_sample) or <size_t>to.buf % 8:
                raise ValueError("samples needs 8 bytes for each queue, aligned to 8 bytes")
            for memory in self.memories:
                memory.begin()
                begun.append(memory)
            with nogil:
                pv_ring_sample_all(self.raw, self.count, <pv_ring_sample *>to.buf)
        finally:
            for memory in begun:
                memory.done()
            PyBuffer_Release(&to)
