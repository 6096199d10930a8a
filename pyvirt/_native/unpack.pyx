"""The door to the libraries that unpack: libdeflate, zlib and libzstd, found when they are needed.

What counts as a good block is what QEMU takes (block/qcow2-threads.c): the block must be full,
and a deflate stream may have more.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memset
from posix.dlfcn cimport RTLD_LOCAL, RTLD_NOW, dlopen, dlsym

from pyvirt._native.columns cimport PV_CORRUPT, PV_IO, PV_OK

cdef struct z_stream:
    const uint8_t *next_in
    unsigned avail_in
    unsigned long total_in
    uint8_t *next_out
    unsigned avail_out
    unsigned long total_out
    const char *msg
    void *state
    void *zalloc
    void *zfree
    void *opaque
    int data_type
    unsigned long adler
    unsigned long reserved

cdef struct zstd_buffer:
    void *at
    size_t size
    size_t pos

ctypedef void *(*make_t)() noexcept nogil
ctypedef void (*drop_t)(void *) noexcept nogil
ctypedef int (*deflate_t)(void *, const void *, size_t, void *, size_t, size_t *) noexcept nogil
ctypedef int (*init_t)(z_stream *, int, const char *, int) noexcept nogil
ctypedef int (*inflate_t)(z_stream *, int) noexcept nogil
ctypedef int (*end_t)(z_stream *) noexcept nogil
ctypedef size_t (*frame_t)(const void *, size_t) noexcept nogil
ctypedef size_t (*whole_t)(void *, void *, size_t, const void *, size_t) noexcept nogil
ctypedef size_t (*stream_t)(void *, zstd_buffer *, zstd_buffer *) noexcept nogil
ctypedef size_t (*reset_t)(void *, int) noexcept nogil
ctypedef unsigned (*error_t)(size_t) noexcept nogil

cdef struct functions:
    make_t deflate_make
    drop_t deflate_drop
    deflate_t deflate
    init_t init
    inflate_t inflate
    end_t end
    make_t zstd_make
    drop_t zstd_drop
    frame_t frame
    whole_t whole
    stream_t stream
    reset_t reset
    error_t error

cdef functions lib
cdef dict found = {}

# Numbers of the codecs; 0 stands for what only Python can unpack.
cdef enum:
    DEFLATE = 1
    ZSTD = 2

LIBRARIES = {"zlib": b"libz.so.1", "libdeflate": b"libdeflate.so.0", "zstd": b"libzstd.so.1"}


cdef void *symbol(str library, const char *name) noexcept:
    cdef void *handle = dlopen(<const char *>LIBRARIES[library], RTLD_NOW | RTLD_LOCAL)
    return dlsym(handle, name) if handle != NULL else NULL


cdef load():
    lib.init = <init_t>symbol("zlib", b"inflateInit2_")
    lib.inflate = <inflate_t>symbol("zlib", b"inflate")
    lib.end = <end_t>symbol("zlib", b"inflateEnd")
    lib.deflate_make = <make_t>symbol("libdeflate", b"libdeflate_alloc_decompressor")
    lib.deflate_drop = <drop_t>symbol("libdeflate", b"libdeflate_free_decompressor")
    lib.deflate = <deflate_t>symbol("libdeflate", b"libdeflate_deflate_decompress")
    lib.zstd_make = <make_t>symbol("zstd", b"ZSTD_createDCtx")
    lib.zstd_drop = <drop_t>symbol("zstd", b"ZSTD_freeDCtx")
    lib.frame = <frame_t>symbol("zstd", b"ZSTD_findFrameCompressedSize")
    lib.whole = <whole_t>symbol("zstd", b"ZSTD_decompressDCtx")
    lib.stream = <stream_t>symbol("zstd", b"ZSTD_decompressStream")
    lib.reset = <reset_t>symbol("zstd", b"ZSTD_DCtx_reset")
    lib.error = <error_t>symbol("zstd", b"ZSTD_isError")
    found["zlib"] = lib.init != NULL and lib.inflate != NULL and lib.end != NULL
    found["libdeflate"] = (lib.deflate_make != NULL and lib.deflate_drop != NULL
                           and lib.deflate != NULL)
    found["zstd"] = (lib.zstd_make != NULL and lib.zstd_drop != NULL and lib.frame != NULL
                     and lib.whole != NULL and lib.stream != NULL and lib.reset != NULL
                     and lib.error != NULL)


def libraries():
    """Which libraries are here, by name."""
    if not found:
        load()
    return dict(found)


def codec(str name):
    """The number of "zlib" (deflate without a header) or "zstd"; 0 where its library is missing."""
    here = libraries()
    if name == "zlib" and here["zlib"]:
        return DEFLATE
    return ZSTD if name == "zstd" and here["zstd"] else 0


cdef pv_status inflated(const uint8_t *data, size_t stored, uint8_t *to, size_t size) noexcept nogil:
    """As QEMU does it: all of the output must be there, whatever follows in the stream."""
    cdef z_stream stream
    cdef int status
    memset(&stream, 0, sizeof(stream))
    stream.next_in, stream.avail_in = data, <unsigned>stored
    stream.next_out, stream.avail_out = to, <unsigned>size
    if lib.init(&stream, -15, b"1.2.11", sizeof(stream)) != 0:
        return PV_IO
    status = lib.inflate(&stream, 4)  # Z_FINISH
    lib.end(&stream)
    # Z_STREAM_END, or Z_BUF_ERROR and Z_OK where there is more.
    return PV_OK if (status in (0, 1, -5)) and stream.avail_out == 0 else PV_CORRUPT


cdef pv_status streamed(void *state, const uint8_t *data, size_t stored, uint8_t *to,
                        size_t size) noexcept nogil:
    """Frame after frame until the block is full; the last one must end with it."""
    cdef zstd_buffer source, target
    cdef size_t more = 1, before
    source.at, source.size, source.pos = <void *>data, stored, 0
    target.at, target.size, target.pos = to, size, 0
    lib.reset(state, 1)
    while target.pos < size:
        before = source.pos + target.pos
        more = lib.stream(state, &target, &source)
        if lib.error(more) or source.pos + target.pos == before:
            return PV_CORRUPT
    return PV_OK if more == 0 else PV_CORRUPT


cdef pv_status unpacked(void *context, int codec, const uint8_t *data, size_t stored,
                        uint8_t *to, size_t size) noexcept nogil:
    cdef states *state = <states *>context
    cdef size_t frame
    if codec == DEFLATE:
        if state.deflate == NULL and lib.deflate_make != NULL:
            state.deflate = lib.deflate_make()
        # It wants the stream to end where the block does; QEMU does not.
        if state.deflate != NULL and lib.deflate(state.deflate, data, stored, to, size, NULL) == 0:
            return PV_OK
        return inflated(data, stored, to, size)
    if state.zstd == NULL:
        state.zstd = lib.zstd_make()
    if state.zstd == NULL:
        return PV_IO
    frame = lib.frame(data, stored)
    if not lib.error(frame) and lib.whole(state.zstd, to, size, data, frame) == size:
        return PV_OK
    return streamed(state.zstd, data, stored, to, size)


cdef class Unpacker:
    def __dealloc__(self):
        if self.raw.deflate != NULL:
            lib.deflate_drop(self.raw.deflate)
        if self.raw.zstd != NULL:
            lib.zstd_drop(self.raw.zstd)

    def unpack(self, str name, data, size_t size):
        """`size` bytes of a packed block, or None if it is damaged; without the GIL."""
        cdef int number = codec(name)
        cdef Py_buffer view
        cdef pv_status status
        if number == 0:
            raise KeyError(name)
        to = PyBytes_FromStringAndSize(NULL, size)
        cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(to)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            with nogil:
                status = unpacked(&self.raw, number, <const uint8_t *>view.buf, view.len, out, size)
        finally:
            PyBuffer_Release(&view)
        return to if status == PV_OK else None
