"""The doors to csrc/pv_image.c: columns of extents, and sources that C reads itself."""

import mmap

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport PyObject
from libc.errno cimport EINTR, errno
from libc.string cimport memcpy, memset
from posix.types cimport off_t

from pyvirt.errors import BudgetError, ImageError

cdef extern from "Python.h":
    PyObject *PyUnicode_New(Py_ssize_t, Py_UCS4)
    void *PyUnicode_DATA(PyObject *)
    int PyUnicode_Resize(PyObject **, Py_ssize_t) except -1
    void Py_XDECREF(PyObject *)

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *, size_t, int)

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int, void *, size_t, off_t)

cdef extern from "pv_image.h" nogil:
    ctypedef struct pv_json_state:
        uint8_t open
    pv_status pv_columns_add(pv_columns *, uint64_t, uint64_t, uint64_t, uint8_t, uint16_t,
                             uint16_t)
    pv_status pv_columns_merge(const pv_columns *, const pv_columns *, uint64_t, pv_columns *)
    void pv_columns_ground(pv_columns *)
    ctypedef struct pv_holes:
        const uint64_t *data
        size_t pairs
    size_t pv_columns_mark(pv_columns *, const pv_holes *, size_t, uint16_t)
    pv_status pv_columns_split(const pv_columns *, const pv_holes *, size_t, uint16_t,
                               pv_columns *)
    ctypedef struct pv_columns_totals:
        uint64_t allocated, zero, compressed, stored, absent, pieces, touched
    void pv_columns_sum(const pv_columns *, uint64_t, pv_columns_totals *)
    pv_status pv_columns_diff(const pv_columns *, const pv_columns *, pv_columns *)
    size_t pv_columns_json(const pv_columns *, size_t *, pv_json_state *, int, uint8_t *, size_t)

cdef enum:
    HOLES = 1024  # layers of a chain at most
    HUGE = 1 << 20  # bytes of a column or of a text that are worth huge pages
    PAGE = 2 << 20  # such a page, in whose multiples the kernel places what it can be used for

cdef uint64_t EMPTY[2]
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE

cdef void *address(object owner) except NULL:
    cdef Py_buffer view
    PyObject_GetBuffer(owner, &view, PyBUF_SIMPLE)
    PyBuffer_Release(&view)
    return view.buf


cdef object column(size_t size, bint huge):
    """Memory that costs nothing before it is written to."""
    owner = mmap.mmap(-1, (size + PAGE - 1) // PAGE * PAGE if huge else max(1, size),
                      flags=PRIVATE)
    if huge:
        owner.madvise(mmap.MADV_HUGEPAGE)
    return owner


cdef class Columns:
    def __cinit__(self, size_t room):
        # Only the wide ones: huge pages of the others would cost more memory than time.
        self.owners = [column(8 * room, 8 * room >= HUGE) for _ in range(3)]
        self.owners += [column(size * room, False) for size in (4, 2, 2, 1)]
        self.raw.start = <uint64_t *>address(self.owners[0])
        self.raw.length = <uint64_t *>address(self.owners[1])
        self.raw.host = <uint64_t *>address(self.owners[2])
        self.raw.stored = <uint32_t *>address(self.owners[3])
        self.raw.depth = <uint16_t *>address(self.owners[4])
        self.raw.file = <uint16_t *>address(self.owners[5])
        self.raw.flags = <uint8_t *>address(self.owners[6])
        self.raw.room = room

    def __len__(self):
        return self.raw.count

    def views(self):
        """The filled part of each column: start, length, host, stored, depth, file, flags."""
        return [memoryview(owner).cast(code)[:self.raw.count]
                for owner, code in zip(self.owners, "QQQIHHB")]

    def add(self, uint64_t start, uint64_t length, uint64_t host, uint8_t flags,
            uint16_t depth=0, uint16_t file=0, uint32_t stored=0):
        """One extent more, or a longer last one."""
        cdef size_t before = self.raw.count
        if pv_columns_add(&self.raw, start, length, host, flags, depth, file) != PV_OK:
            raise BudgetError("the extents", self.raw.room * 29)
        if stored and self.raw.count > before:
            self.raw.stored[before] = stored

    def lay(self, Columns top, Columns below, uint64_t below_end):
        """Fill this with `top` over `below`."""
        cdef pv_status status
        with nogil:
            status = pv_columns_merge(&top.raw, &below.raw, below_end, &self.raw)
        if status != PV_OK:
            raise BudgetError("the extents", self.raw.room * 29)

    def ground(self):
        """Nothing is below: what is not PRESENT gets ZERO, in place."""
        with nogil:
            pv_columns_ground(&self.raw)

    def mark(self, maps, uint16_t file, size_t most):
        """These, or new columns if some had to be split at the holes of the files they are in.

        `maps` has packed pairs for each layer, or None, and is about source `file` of each.
        """
        cdef pv_holes holes[HOLES]
        cdef size_t depths = len(maps), more
        cdef pv_status status
        cdef Columns to
        if depths > HOLES:
            raise ValueError("too many layers")
        for depth, pairs in enumerate(maps):
            holes[depth].data, holes[depth].pairs = NULL, 0
            if pairs is not None:
                holes[depth].data = <const uint64_t *>address(pairs) if len(pairs) else EMPTY
                holes[depth].pairs = len(pairs) // 2
        with nogil:
            more = pv_columns_mark(&self.raw, holes, depths, file)
        if more == 0:
            return self
        to = Columns(min(self.raw.count + more, most))
        with nogil:
            status = pv_columns_split(&self.raw, holes, depths, file, &to.raw)
        if status != PV_OK:
            raise BudgetError("the extents", most * 29)
        return to

    def subtract(self, Columns old, Columns new):
        """Fill this with what of `new` may differ from `old`, by their metadata."""
        cdef pv_status status
        with nogil:
            status = pv_columns_diff(&old.raw, &new.raw, &self.raw)
        if status != PV_OK:
            raise BudgetError("the extents", self.raw.room * 29)

    def sums(self, uint64_t block):
        """Totals in bytes; `touched` is the number of blocks that have data."""
        cdef pv_columns_totals totals
        if block == 0:
            raise ValueError("block must not be 0")
        with nogil:
            pv_columns_sum(&self.raw, block, &totals)
        return totals

    def json(self, bint compressed):
        """The text of `qemu-img map --output=json`, written to where the str keeps it."""
        cdef size_t at = 0, size = 1, step, room = 128 * self.raw.count + 1024
        cdef pv_json_state state
        cdef uint8_t *to
        cdef PyObject *text = PyUnicode_New(room, 127)
        if text == NULL:
            raise MemoryError
        try:
            to = <uint8_t *>PyUnicode_DATA(text)
            if room >= HUGE:
                madvise(<void *>((<size_t>to + 4095) & ~<size_t>4095), room & ~<size_t>4095, 14)
            memset(&state, 0, sizeof(state))
            to[0] = 91  # [
            while at < self.raw.count or state.open:
                with nogil:
                    step = pv_columns_json(&self.raw, &at, &state, compressed, to + size,
                                           room - size)
                size += step
                if at < self.raw.count or state.open:
                    room += room // 2
                    PyUnicode_Resize(&text, room)
                    to = <uint8_t *>PyUnicode_DATA(text)
            memcpy(to + size, "]\n", 2)
            PyUnicode_Resize(&text, size + 2)
            return <object>text
        finally:
            Py_XDECREF(text)


cdef pv_status read_fd(void *context, void *buffer, size_t size, uint64_t offset,
                       pv_where *where) noexcept nogil:
    cdef size_t done = 0
    cdef ssize_t got
    cdef int fd = (<int *>context)[0]
    if offset > <uint64_t>1 << 62:
        where.offset, where.value = offset, size
        return PV_TRUNCATED
    while done < size:
        got = pread(fd, <char *>buffer + done, size - done, <off_t>(offset + done))
        if got < 0 and errno == EINTR:
            continue
        if got <= 0:
            where.offset = offset
            where.value = <uint64_t>errno if got < 0 else size
            return PV_IO if got < 0 else PV_TRUNCATED
        done += got
    return PV_OK


cdef pv_status read_object(void *context, void *buffer, size_t size, uint64_t offset,
                           pv_where *where) noexcept with gil:
    cdef Reader reader = <Reader>context
    cdef bytes data
    where.offset, where.value = offset, 0
    try:
        data = bytes(reader.source.pread(size, offset))
    except BaseException as error:
        reader.error = error
        return PV_IO
    if <size_t>len(data) < size:
        where.value = size
        return PV_TRUNCATED
    memcpy(buffer, PyBytes_AS_STRING(data), size)
    return PV_OK


cdef class Reader:
    def __cinit__(self, source):
        self.source, self.error = source, None
        self.raw.size = source.size
        self.fd = source.fileno() if hasattr(source, "fileno") else -1
        if self.fd >= 0:
            self.raw.read, self.raw.context = read_fd, <void *>&self.fd
        else:
            self.raw.read, self.raw.context = read_object, <void *>self

    cdef fail(self, pv_status status, pv_where *where, dict tables):
        """Raise what `status` means."""
        name = getattr(self.source, "name", "image")
        table = tables.get(where.table)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if status == PV_IO:
            raise OSError(where.value, "reading an image failed", name)
        if status == PV_TRUNCATED:
            raise ImageError(name, "is truncated", table=table, offset=where.offset)
        if status == PV_FULL:
            raise BudgetError("what is in " + name, 0)
        if status == PV_BUSY:
            raise ImageError(name, "asks for more work than its size explains", table=table,
                             offset=where.offset)
        raise ImageError(name, "is corrupt", table=table, offset=where.offset, found=where.value)
