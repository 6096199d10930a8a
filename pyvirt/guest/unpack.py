"""Decompresses what distributions compress: kernels, modules and the parts of packages."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

from pyvirt.errors import ProtocolError, UnsupportedError

_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_LZ4_BLOCK = 8 << 20  # what one block of the legacy format holds at most
_ZSTD = b"\x28\xb5\x2f\xfd"
_STEP = 1 << 20


def unpack(data: bytes, name: str = "the file") -> bytes:
    """*data* decompressed by what its first bytes say; unchanged when they say nothing.

    Whatever follows the compressed stream is ignored: the kernel's build appends the size.
    """
    for magic, decompress in _FORMATS.items():
        if data.startswith(magic):
            try:
                return decompress(data)
            except (lzma.LZMAError, OSError, EOFError, ValueError, zlib.error) as error:
                raise ProtocolError(name, f"is damaged ({error})", 0) from None
    return data


def _gzip(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    return _whole(stream.decompress(data), stream.eof)


def _bzip2(data: bytes) -> bytes:
    stream = bz2.BZ2Decompressor()
    return _whole(stream.decompress(data), stream.eof)


def _xz(data: bytes) -> bytes:
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    return _whole(stream.decompress(data), stream.eof)


def _lzma(data: bytes) -> bytes:
    stream = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
    return _whole(stream.decompress(data), stream.eof)


def _whole(data: bytes, ended: bool) -> bytes:
    if not ended:
        raise EOFError("it ends too early")
    return data


def _zstd(data: bytes) -> bytes:
    """One zstd frame, by libzstd: Python has none before 3.14."""
    ffi, library = _zstd_library()
    stream = ffi.gc(library.ZSTD_createDStream(), library.ZSTD_freeDStream)
    source = ffi.from_buffer(data)
    given = ffi.new("ZSTD_buffer *", {"data": source, "size": len(data), "at": 0})
    space = ffi.new("char[]", _STEP)
    pieces = []
    while True:
        taken = ffi.new("ZSTD_buffer *", {"data": space, "size": _STEP, "at": 0})
        left = library.ZSTD_decompressStream(stream, taken, given)
        if library.ZSTD_isError(left):
            raise ValueError(ffi.string(library.ZSTD_getErrorName(left)).decode())
        pieces.append(ffi.buffer(space, taken.at)[:])
        if left == 0:
            return b"".join(pieces)
        if taken.at == 0 and given.at == len(data):
            raise EOFError("it ends too early")


def _lz4(data: bytes) -> bytes:
    """The legacy lz4 format, in which `lz4 -l` packs kernels."""
    ffi, library = _lz4_library()
    space = ffi.new("char[]", _LZ4_BLOCK)
    pieces: list[bytes] = []
    at = len(_LZ4_LEGACY)
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        block = data[at + 4 : at + 4 + size]
        length = library.LZ4_decompress_safe(block, space, len(block), _LZ4_BLOCK)
        if length < 0 or len(block) < size:
            if pieces and at + 4 == len(data):  # the size that the kernel's build appends
                break
            raise ValueError("wrong lz4 block")
        pieces.append(ffi.buffer(space, length)[:])
        at += 4 + size
    return b"".join(pieces)


@cache
def _zstd_library() -> tuple[Any, Any]:
    return _library(
        "libzstd.so.1",
        """
        typedef struct { const void *data; size_t size; size_t at; } ZSTD_buffer;
        typedef struct ZSTD_DStream ZSTD_DStream;
        ZSTD_DStream *ZSTD_createDStream(void);
        size_t ZSTD_freeDStream(ZSTD_DStream *);
        size_t ZSTD_decompressStream(ZSTD_DStream *, ZSTD_buffer *, ZSTD_buffer *);
        unsigned ZSTD_isError(size_t);
        const char *ZSTD_getErrorName(size_t);
        """,
    )


@cache
def _lz4_library() -> tuple[Any, Any]:
    return _library(
        "liblz4.so.1", "int LZ4_decompress_safe(const char *, char *, int size, int capacity);"
    )


def _library(name: str, declarations: str) -> tuple[Any, Any]:
    from cffi import FFI  # opened only when such a file is met

    ffi = FFI()
    ffi.cdef(declarations)
    try:
        return ffi, ffi.dlopen(name)
    except OSError:
        package = name.split(".")[0] + "1" if "zstd" in name else "liblz4-1"
        raise UnsupportedError(name, "this host", f"install {package}") from None


_FORMATS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": _gzip,
    b"\xfd7zXZ\x00": _xz,
    b"BZh": _bzip2,
    b"\x5d\x00\x00": _lzma,
    _ZSTD: _zstd,
    _LZ4_LEGACY: _lz4,
}
