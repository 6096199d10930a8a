"""The door to libcrypto: sectors of an encrypted disk, many in one call without the GIL."""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.dlfcn cimport RTLD_LOCAL, RTLD_NOW, dlopen, dlsym

from pyvirt._native.columns cimport PV_IO, PV_OK
from pyvirt.errors import UnsupportedError

ctypedef void *(*make_t)() noexcept nogil
ctypedef void (*drop_t)(void *) noexcept nogil
ctypedef void *(*kind_t)(void *, const char *, const char *) noexcept nogil
ctypedef int (*init_t)(void *, const void *, void *, const uint8_t *, const uint8_t *,
                       int) noexcept nogil
ctypedef int (*update_t)(void *, uint8_t *, int *, const uint8_t *, int) noexcept nogil
ctypedef int (*padding_t)(void *, int) noexcept nogil
ctypedef int (*length_t)(const void *) noexcept nogil

cdef struct functions:
    make_t make
    drop_t drop
    kind_t kind
    init_t init
    update_t update
    padding_t padding
    length_t key_length
    drop_t forget

cdef functions lib  # `make` is found last: it tells that all are

cdef enum:
    PLAIN = 1
    PLAIN64 = 2
    ESSIV = 3

LIBRARIES = (b"libcrypto.so.3", b"libcrypto.so.4")
IVS = {"plain": PLAIN, "plain64": PLAIN64, "essiv": ESSIV}


cdef load():
    cdef void *handle = NULL
    for name in LIBRARIES:
        if handle == NULL:
            handle = dlopen(<const char *>name, RTLD_NOW | RTLD_LOCAL)
    if handle == NULL:
        raise UnsupportedError("reading encrypted disks", "this host: OpenSSL 3 (libcrypto.so.3)")
    lib.drop = <drop_t>dlsym(handle, b"EVP_CIPHER_CTX_free")
    lib.kind = <kind_t>dlsym(handle, b"EVP_CIPHER_fetch")
    lib.update = <update_t>dlsym(handle, b"EVP_CipherUpdate")
    lib.padding = <padding_t>dlsym(handle, b"EVP_CIPHER_CTX_set_padding")
    lib.key_length = <length_t>dlsym(handle, b"EVP_CIPHER_get_key_length")
    lib.forget = <drop_t>dlsym(handle, b"EVP_CIPHER_free")
    lib.init = <init_t>dlsym(handle, b"EVP_CipherInit_ex")
    lib.make = <make_t>dlsym(handle, b"EVP_CIPHER_CTX_new")


cdef void *fetched(str name, bytes key) except NULL:
    """A cipher by its name, if it takes such a key."""
    cdef bytes text = name.encode()
    cdef void *kind = lib.kind(NULL, text, NULL)
    if kind == NULL:
        raise UnsupportedError(f"cipher {name}", "this host's OpenSSL")
    if lib.key_length(kind) != len(key):
        lib.forget(kind)
        raise ValueError(f"{name} does not take a key of {len(key)} bytes")
    return kind


cdef pv_status sectors(const secret *key, void *main, void *salt, uint8_t *data, size_t size,
                       uint64_t number, int encrypt) noexcept nogil:
    cdef uint8_t iv[16]
    cdef size_t at = 0
    cdef unsigned byte, digits = 4 if key.iv == PLAIN else 8
    cdef int length = 0
    if not lib.init(main, key.kind, NULL, key.key, NULL, encrypt):
        return PV_IO
    lib.padding(main, 0)
    if salt != NULL:
        if not lib.init(salt, key.salt_kind, NULL, key.salt, NULL, 1):
            return PV_IO
        lib.padding(salt, 0)
    while at < size:
        memset(iv, 0, sizeof(iv))
        for byte in range(digits):
            iv[byte] = <uint8_t>(number >> (8 * byte))
        if salt != NULL and not lib.update(salt, iv, &length, iv, 16):
            return PV_IO
        if not lib.init(main, NULL, NULL, NULL, iv, encrypt):
            return PV_IO
        if not lib.update(main, data + at, &length, data + at, <int>key.sector):
            return PV_IO
        at += key.sector
        number += key.sector // 512
    return PV_OK


cdef pv_status crypt(const secret *key, uint8_t *data, size_t size, uint64_t place,
                     int encrypt) noexcept nogil:
    cdef void *main = lib.make()
    cdef void *salt = lib.make() if key.iv == ESSIV else NULL
    cdef pv_status status = PV_IO
    if main != NULL and (salt != NULL or key.iv != ESSIV):
        status = sectors(key, main, salt, data, size, place // 512, encrypt)
    lib.drop(main)
    lib.drop(salt)
    return status


cdef pv_status decrypted(void *context, void *cipher, uint8_t *data, size_t size,
                         uint64_t place) noexcept nogil:
    return crypt(<const secret *>cipher, data, size, place, 0)


cdef class Cipher:
    def __cinit__(self, str name, bytes key, str iv, uint32_t sector=512, bytes salt=b"",
                  str salt_name=""):
        """`name` as OpenSSL has it, such as "AES-256-XTS"; `iv` is "plain", "plain64" or "essiv".

        Sector numbers always count 512 bytes. `salt` is the key of "essiv" for `salt_name`.
        """
        if lib.make == NULL:
            load()
        if iv not in IVS:
            raise UnsupportedError(f"IV generator {iv}", "encrypted disks")
        self.keys = (key, salt)
        self.raw.kind = fetched(name, key)
        self.raw.key, self.raw.salt = <const uint8_t *><char *>key, <const uint8_t *><char *>salt
        self.raw.sector, self.raw.iv = sector, IVS[iv]
        if self.raw.iv == ESSIV:
            self.raw.salt_kind = fetched(salt_name, salt)

    def __dealloc__(self):
        if self.raw.kind != NULL:
            lib.forget(self.raw.kind)
        if self.raw.salt_kind != NULL:
            lib.forget(self.raw.salt_kind)

    @property
    def sector(self):
        return self.raw.sector

    def apply(self, data, uint64_t place, bint encrypt=False):
        """Decrypt, or `encrypt`, whole sectors in place; `place` is the byte of the first one."""
        cdef Py_buffer view
        cdef pv_status status
        PyObject_GetBuffer(data, &view, PyBUF_WRITABLE)
        try:
            if view.len % self.raw.sector:
                raise ValueError("only whole sectors are decrypted")
            with nogil:
                status = crypt(&self.raw, <uint8_t *>view.buf, view.len, place, encrypt)
        finally:
            PyBuffer_Release(&view)
        if status != PV_OK:
            raise ValueError("libcrypto failed")
