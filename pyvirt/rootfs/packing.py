"""Decompresses what archives are packed in, piece by piece, and never much at once."""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from pyvirt.errors import RootFSError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE = 256 << 10
_MEMORY = 256 << 20  # bytes of a dictionary; `xz -9` takes 65 MiB


class _Stream(Protocol):
    """What bz2, lzma and zstd agree about."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gzip:
    """zlib, in the manner of the others."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._rest

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        got = self._stream.decompress(self._rest + data, max_length)
        self._rest = self._stream.unconsumed_tail
        return got


_FORMATS: dict[bytes, Callable[[], _Stream]] = {
    b"\x1f\x8b": _Gzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
    b"\x28\xb5\x2f\xfd": zstd.ZstdDecompressor,
    # What "zstd:chunked" puts at the end of layers: frames to be skipped, RFC 8878, 3.1.2.
    **{bytes([low, 0x2A, 0x4D, 0x18]): zstd.ZstdDecompressor for low in range(0x50, 0x60)},
}
_LONGEST_MAGIC = 6
_FAULTS = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError, ValueError)


def unpacked(pieces: Iterator[bytes], fault: Callable[[str], RootFSError]) -> Iterator[bytes]:
    """The contents of a stream that is compressed, as its first bytes say, or is not."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= _LONGEST_MAGIC:
            break
    make = _format(head)
    if make is None:
        yield head
        yield from pieces
        return
    yield from _members(make, head, pieces, fault)


def _format(head: bytes) -> Callable[[], _Stream] | None:
    return next((make for magic, make in _FORMATS.items() if head.startswith(magic)), None)


def _members(
    make: Callable[[], _Stream],
    data: bytes,
    pieces: Iterator[bytes],
    fault: Callable[[str], RootFSError],
) -> Iterator[bytes]:
    """All streams that follow each other: pigz and zstd write many. Zeros may pad them."""
    while data:
        stream = make()
        while not stream.eof:
            if stream.needs_input and not data and not (data := next(pieces, b"")):
                raise fault("ends too early: what it is compressed in is cut short")
            yield _step(stream, data, fault)
            data = b""
        data = stream.unused_data
        while len(data) < _LONGEST_MAGIC and (more := next(pieces, b"")):
            data += more
        if data and (following := _format(data)) is not None:
            make = following
        elif data.strip(b"\0") or any(piece.strip(b"\0") for piece in pieces):
            raise fault("has something behind its end")
        else:
            return


def _step(stream: _Stream, data: bytes, fault: Callable[[str], RootFSError]) -> bytes:
    try:
        return stream.decompress(data, _PIECE)
    except _FAULTS as error:
        raise fault(f"is damaged ({error})") from None


def packed(pieces: Iterator[bytes], level: int = 3) -> Iterator[bytes]:
    """*pieces* as one zstd frame with a checksum."""
    options: dict[Any, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()
