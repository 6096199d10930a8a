"""The door to csrc/pv_content.c: guest bytes through the flat map of a chain."""

from cpython.buffer cimport (PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release,
                             PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

import os

from pyvirt._native.cipher cimport Cipher, decrypted
from pyvirt._native.columns cimport (PV_CORRUPT, PV_IO, PV_OK, Columns, Reader, pv_columns,
                                     pv_reader, pv_status, pv_where)
from pyvirt._native.unpack cimport Unpacker, unpacked
from pyvirt.errors import BudgetError, ImageError

cdef extern from "pv_content.h" nogil:
    enum:
        PV_BLOCK, PV_ENCRYPTED
    ctypedef struct pv_work:
        pv_status (*unpack)(void *, int, const uint8_t *, size_t, uint8_t *, size_t) noexcept nogil
        pv_status (*decrypt)(void *, void *, uint8_t *, size_t, uint64_t) noexcept nogil
        void *context
        uint8_t *stored
        size_t room
    ctypedef struct pv_origin:
        pv_reader reader
        uint64_t limit, block
        int codec
        void *cipher
        uint32_t sector
        uint8_t by_guest
        uint64_t payload
    ctypedef struct pv_content:
        const pv_columns *map
        const uint32_t *buckets
        unsigned shift
        uint64_t size
        const pv_origin *origins
        const uint32_t *first
    void pv_content_index(const pv_columns *, unsigned, uint64_t, uint32_t *)
    size_t pv_content_find(const pv_content *, uint64_t)
    const pv_origin *pv_content_origin(const pv_content *, size_t)
    pv_status pv_content_read(const pv_content *, const pv_work *, uint64_t, size_t, uint8_t *,
                              size_t *, size_t *, pv_where *)
    pv_status pv_origin_unpack(const pv_origin *, const pv_work *, uint64_t, uint32_t, uint8_t *,
                               pv_where *)
    ctypedef struct pv_side:
        const pv_columns *map
        const uint32_t *first
        const uint32_t *same
    pv_status pv_content_suspects(const pv_side *, const pv_side *, uint64_t, pv_columns *)
    pv_status pv_content_changes(const uint8_t *, const uint8_t *, size_t, uint64_t, pv_columns *)
    size_t pv_content_run(const uint8_t *, size_t, int *)
    size_t pv_content_differs(const uint8_t *, const uint8_t *, size_t)

# What one reading thread works with.
cdef class Work:
    cdef pv_work raw
    cdef Unpacker unpacker

    def __cinit__(self, size_t room):
        self.unpacker = Unpacker()
        self.raw.unpack, self.raw.decrypt = unpacked, decrypted
        self.raw.context = &self.unpacker.raw
        self.raw.stored = <uint8_t *>malloc(room)
        self.raw.room = room
        if self.raw.stored == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.raw.stored)


cdef class Content:
    cdef pv_content raw
    cdef Columns columns
    cdef pv_origin *origins
    cdef uint32_t *first
    cdef uint32_t *buckets
    cdef int *fds
    cdef size_t count
    cdef list readers, works, kept
    cdef object unpack
    cdef size_t room, busy
    cdef bint closed
    cdef dict cache
    cdef size_t cached, most

    def __cinit__(self, Columns columns, uint64_t size, list origins, list first, unpack,
                  size_t cache):
        """`origins` are (source, limit, block, codec, cipher, by_guest, payload) of each file.

        `unpack(origin, start, host, stored)` gives the first byte and the content of a block
        that no codec unpacks; `cache` bytes of unpacked blocks are kept.
        """
        cdef size_t number = len(origins)
        self.columns, self.unpack, self.most = columns, unpack, cache
        self.readers, self.works, self.kept, self.cache = [], [], [], {}
        self.origins = <pv_origin *>calloc(number + 1, sizeof(pv_origin))
        self.fds = <int *>calloc(number + 1, sizeof(int))
        self.first = <uint32_t *>calloc(len(first) + 1, sizeof(uint32_t))
        if self.origins == NULL or self.fds == NULL or self.first == NULL:
            raise MemoryError
        for at, one in enumerate(first):
            self.first[at] = one
        for source, limit, block, codec, cipher, by_guest, payload in origins:
            self.add(source, limit, block, codec, cipher, by_guest, payload)
        self.index(size)

    def __dealloc__(self):
        self.release()
        free(self.origins)
        free(self.fds)
        free(self.first)
        free(self.buckets)

    cdef add(self, source, uint64_t limit, uint64_t block, int codec, Cipher cipher, bint by_guest,
             uint64_t payload):
        cdef pv_origin *origin = self.origins + self.count
        cdef Reader reader = Reader(source)
        origin.reader = reader.raw
        self.fds[self.count] = -1
        if reader.fd >= 0:
            # A descriptor of its own: whoever closes the source cannot make us read another file.
            self.fds[self.count] = os.dup(reader.fd)
            origin.reader.context = self.fds + self.count
        self.readers.append(reader)
        self.count += 1
        origin.limit, origin.block, origin.codec = max(limit, origin.reader.size), block, codec
        origin.by_guest, origin.payload = by_guest, payload
        if cipher is not None:
            self.kept.append(cipher)
            origin.cipher, origin.sector = &cipher.raw, cipher.raw.sector
        if codec or cipher is not None:
            self.room = max(self.room, 2 * block)

    cdef index(self, uint64_t size):
        """About as many buckets as extents, so that few steps find one."""
        cdef uint64_t count
        self.raw.map, self.raw.size = &self.columns.raw, size
        self.raw.origins, self.raw.first = self.origins, self.first
        self.raw.shift = 12
        while (size >> self.raw.shift) > max(<uint64_t>1, self.columns.raw.count):
            self.raw.shift += 1
        count = ((size - 1) >> self.raw.shift) + 2 if size else 2
        self.buckets = <uint32_t *>malloc(count * sizeof(uint32_t))
        if self.buckets == NULL:
            raise MemoryError
        self.raw.buckets = self.buckets
        with nogil:
            pv_content_index(self.raw.map, self.raw.shift, size, self.buckets)

    # -- Closing ---------------------------------------------------------------------------------

    def close(self):
        """Nothing is read any more; descriptors are closed when the last reader is done."""
        self.closed = True
        if self.busy == 0:
            self.release()

    cdef release(self):
        cdef size_t at
        for at in range(self.count):
            if self.fds[at] >= 0:
                os.close(self.fds[at])
                self.fds[at] = -1

    cdef Work begin(self):
        cdef Work work = None
        if self.closed:
            raise ValueError("the image is closed")
        if self.room:
            work = self.works.pop() if self.works else Work(self.room)
        self.busy += 1
        return work

    cdef end(self, Work work):
        self.busy -= 1
        if work is not None:
            self.works.append(work)
        if self.closed and self.busy == 0:
            self.release()

    # -- Reading ---------------------------------------------------------------------------------

    def read(self, int64_t offset, int64_t size):
        """Guest bytes; fewer only at the end of the disk."""
        if offset < 0 or size < 0:
            raise ValueError(f"offset and size must not be negative, got {offset} and {size}")
        if <uint64_t>offset >= self.raw.size:
            return b""
        if <uint64_t>size > self.raw.size - <uint64_t>offset:
            size = self.raw.size - <uint64_t>offset
        data = PyBytes_FromStringAndSize(NULL, size)
        self.fill(offset, size, <uint8_t *>PyBytes_AS_STRING(data))
        return data

    def readinto(self, buffer, uint64_t offset):
        """Fill `buffer`; the bytes read, fewer only at the end of the disk."""
        cdef Py_buffer view
        cdef size_t size
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            size = view.len
            if offset >= self.raw.size:
                return 0
            if size > self.raw.size - offset:
                size = self.raw.size - offset
            self.fill(offset, size, <uint8_t *>view.buf)
            return size
        finally:
            PyBuffer_Release(&view)

    def readv(self, offsets, size_t size, buffer):
        """`size` bytes from each of the packed uint64 `offsets`, one behind the other."""
        cdef Py_buffer places, view
        cdef size_t count, at = 0
        cdef const uint64_t *place
        cdef Work work
        PyObject_GetBuffer(offsets, &places, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
            try:
                count, place = places.len // 8, <const uint64_t *>places.buf
                if <size_t>view.len // max(size, 1) < count:
                    raise ValueError(f"the buffer is too small for {count} reads of {size} bytes")
                for at in range(count):
                    if place[at] > self.raw.size or size > self.raw.size - place[at]:
                        raise ValueError(f"{size} bytes at {place[at]} are not within the disk")
                self.fill_all(place, count, size, <uint8_t *>view.buf)
            finally:
                PyBuffer_Release(&view)
        finally:
            PyBuffer_Release(&places)

    cdef fill_all(self, const uint64_t *place, size_t count, size_t size, uint8_t *to):
        cdef size_t at = 0, done = 0, extent = 0
        cdef int status
        cdef pv_where where
        cdef Work work = self.begin()
        cdef pv_work *raw = &work.raw if work is not None else NULL
        try:
            while at < count:
                with nogil:
                    status = PV_OK
                    while status == PV_OK and at < count:
                        status = pv_content_read(&self.raw, raw, place[at], size, to + at * size,
                                                 &done, &extent, &where)
                        at += status == PV_OK
                if status != PV_OK:
                    self.go_on(work, place[at], size, to + at * size, done, extent, status, &where)
                    at += 1
        finally:
            self.end(work)

    cdef fill(self, uint64_t offset, size_t size, uint8_t *to):
        cdef size_t done = 0, extent = 0
        cdef int status
        cdef pv_where where
        cdef Work work = self.begin()
        cdef pv_work *raw = &work.raw if work is not None else NULL
        try:
            with nogil:
                status = pv_content_read(&self.raw, raw, offset, size, to, &done, &extent, &where)
            if status != PV_OK:
                self.go_on(work, offset, size, to, done, extent, status, &where)
        finally:
            self.end(work)

    cdef go_on(self, Work work, uint64_t offset, size_t size, uint8_t *to, size_t done,
               size_t extent, int status, pv_where *where):
        """Read what C left: parts of packed blocks, by way of the cache."""
        cdef size_t more = 0
        cdef pv_work *raw = &work.raw if work is not None else NULL
        while True:
            if status != PV_BLOCK:
                self.fail(extent, <pv_status>status, where)
            done += self.copy(work, extent, offset + done, size - done, to + done)
            if done == size:
                return
            with nogil:
                status = pv_content_read(&self.raw, raw, offset + done, size - done, to + done,
                                         &more, &extent, where)
            done += more
            if status == PV_OK:
                return

    cdef size_t copy(self, Work work, size_t extent, uint64_t guest, size_t size,
                     uint8_t *to) except 0:
        cdef uint64_t end = self.columns.raw.start[extent] + self.columns.raw.length[extent]
        cdef uint64_t start
        cdef bytes block
        start, block = self.block(work, extent)
        size = min(size, end - guest)
        if guest < start or guest - start + size > <size_t>len(block):
            raise ImageError(self.name(extent), "has a packed block that is too short",
                             offset=self.columns.raw.host[extent], found=len(block))
        memcpy(to, PyBytes_AS_STRING(block) + (guest - start), size)
        return size

    # -- Packed blocks ---------------------------------------------------------------------------

    cdef tuple block(self, Work work, size_t extent):
        """Where a packed block begins and what is in it; the last ones are kept."""
        cdef const pv_origin *origin = pv_content_origin(&self.raw, extent)
        key = (origin - self.origins, self.columns.raw.host[extent])
        found = self.take(key)
        if found is None:
            found = self.unpacked(work, extent, origin)
            self.take(key)  # Another thread may have put it there.
        self.cache[key] = found
        self.cached += len(found[1])
        while self.cached > self.most and len(self.cache) > 1:
            self.take(next(iter(self.cache)))
        return found

    cdef take(self, key):
        """A block out of the cache, or None."""
        found = self.cache.pop(key, None)
        if found is not None:
            self.cached -= len(found[1])
        return found

    cdef tuple unpacked(self, Work work, size_t extent, const pv_origin *origin):
        cdef pv_status status
        cdef pv_where where
        cdef uint64_t start = self.columns.raw.start[extent], host = self.columns.raw.host[extent]
        cdef uint32_t stored = self.columns.raw.stored[extent]
        cdef uint8_t *to
        if origin.codec == 0:
            return self.unpack(origin - self.origins, start, host, stored)
        data = PyBytes_FromStringAndSize(NULL, origin.block)
        to = <uint8_t *>PyBytes_AS_STRING(data)
        with nogil:
            status = pv_origin_unpack(origin, &work.raw, host, stored, to, &where)
        if status != PV_OK:
            self.fail(extent, status, &where)
        return start - start % origin.block, data

    # -- Faults ----------------------------------------------------------------------------------

    cdef name(self, size_t extent):
        cdef Reader reader = self.readers[pv_content_origin(&self.raw, extent) - self.origins]
        return getattr(reader.source, "name", "image")

    cdef fail(self, size_t extent, pv_status status, pv_where *where):
        cdef const pv_origin *origin = pv_content_origin(&self.raw, extent)
        cdef Reader reader = self.readers[origin - self.origins]
        if self.columns.raw.flags[extent] & PV_ENCRYPTED and origin.cipher == NULL:
            raise ImageError(self.name(extent), "is encrypted and was opened without a passphrase")
        if status == PV_CORRUPT:
            raise ImageError(self.name(extent), "has a packed block that cannot be unpacked",
                             offset=where.offset)
        where.table = 0
        reader.fail(status, where, {0: "data"})


cdef class Side:
    """A map, with numbers that tell which of its files are the same."""
    cdef pv_side raw
    cdef object owners

    def __cinit__(self, Columns columns, first, same):
        """`first` and `same` are packed uint32: the first file of each depth, and a number for
        each file."""
        self.owners = (columns, bytes(first), bytes(same))
        self.raw.map = &columns.raw
        self.raw.first = <const uint32_t *><char *>self.owners[1]
        self.raw.same = <const uint32_t *><char *>self.owners[2]

    def suspects(self, Side other, uint64_t end, Columns to):
        """Fill `to` with what may differ up to byte `end`; flag 1: this has data, 2: `other`."""
        cdef pv_status status
        with nogil:
            status = pv_content_suspects(&self.raw, &other.raw, end, &to.raw)
        if status != PV_OK:
            raise BudgetError("the extents", to.raw.room * 29)


def changes(a, b, uint64_t guest, Columns to):
    """Add the sectors in which two buffers of one size, guest bytes from `guest` on, differ."""
    cdef Py_buffer one, other
    cdef pv_status status
    PyObject_GetBuffer(a, &one, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(b, &other, PyBUF_SIMPLE)
        try:
            with nogil:
                status = pv_content_changes(<const uint8_t *>one.buf, <const uint8_t *>other.buf,
                                            min(one.len, other.len), guest, &to.raw)
        finally:
            PyBuffer_Release(&other)
    finally:
        PyBuffer_Release(&one)
    if status != PV_OK:
        raise BudgetError("the differences", to.raw.room * 29)


def zeros(data):
    """Whether `data` begins with zeros, and how far that goes on, in steps of 4096 bytes."""
    cdef Py_buffer view
    cdef size_t size
    cdef int zero = 0
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            size = pv_content_run(<const uint8_t *>view.buf, view.len, &zero)
    finally:
        PyBuffer_Release(&view)
    return bool(zero), size


def differs(a, b):
    """The first byte in which two buffers of one size differ, or their size."""
    cdef Py_buffer one, other
    cdef size_t size
    PyObject_GetBuffer(a, &one, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(b, &other, PyBUF_SIMPLE)
        try:
            with nogil:
                size = pv_content_differs(<const uint8_t *>one.buf, <const uint8_t *>other.buf,
                                          min(one.len, other.len))
        finally:
            PyBuffer_Release(&other)
    finally:
        PyBuffer_Release(&one)
    return size
