"""Compressed blocks unpacked, never to more bytes than the block has."""

from __future__ import annotations

import bz2
import lzma
import zlib

from pyvirt.errors import ImageError


def raw_deflate(data: bytes, size: int) -> bytes:
    """A deflate stream without header, of which the block is the beginning, as in QEMU."""
    try:
        return _enough(zlib.decompressobj(-15).decompress(data, size), size)
    except zlib.error as error:
        raise _damaged(error) from error


def zlib_stream(data: bytes, size: int, least: int | None = None) -> bytes:
    """A deflate stream with zlib's header and checksum: `size` bytes, or at `least` so many."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, size)
        more = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise _damaged(error) from error
    return _whole(content, more, stream.eof, size if least is None else least)


def bzip2_stream(data: bytes, size: int) -> bytes:
    """A bzip2 stream, with its checksums."""
    stream = bz2.BZ2Decompressor()
    try:
        content = stream.decompress(data, size)
        more = b"" if stream.eof or stream.needs_input else stream.decompress(b"", 1)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(error) from error
    return _whole(content, more, stream.eof, size)


def xz_stream(data: bytes, size: int) -> bytes:
    """An xz stream, with its checksums, in at most 256 MiB of memory."""
    try:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20)
        content = stream.decompress(data, size)
        more = b"" if stream.eof or stream.needs_input else stream.decompress(b"", 1)
    except (lzma.LZMAError, EOFError) as error:
        raise _damaged(error) from error
    return _whole(content, more, stream.eof, size)


def _whole(content: bytes, more: bytes, ended: bool, least: int) -> bytes:
    """The content of a stream that had to end with it: else nobody has seen its checksum."""
    _enough(content, least)
    if more or not ended:
        raise ImageError("block", "cannot be unpacked: its stream does not end with it")
    return content


def _enough(content: bytes, size: int) -> bytes:
    if len(content) < size:
        raise ImageError("block", "is too short", found=len(content), expected=size)
    return content


def _damaged(error: Exception) -> ImageError:
    return ImageError("block", f"cannot be unpacked: {error}")


def adc(data: bytes, size: int) -> bytes:
    """Apple Data Compression: bytes as they are, and copies of what was written before.

    0x80 + n: n + 1 bytes follow. 0x40 + n, two bytes: copy n + 4 from so far back. Otherwise
    four bits of length, less 3, and ten of distance. A distance of 0 is the last byte.
    """
    out = bytearray()
    at = 0
    while len(out) < size and at < len(data):
        code = data[at]
        if code & 0x80:
            out += data[at + 1 : at + code - 0x80 + 2]
            at += code - 0x80 + 2
            continue
        wide = code & 0x40
        count = (code & 0x3F) + 4 if wide else (code >> 2) + 3
        back = int.from_bytes(data[at + 1 : at + 3], "big") if wide else (code & 3) << 8
        back += 1 if wide else 1 + (data[at + 1] if at + 1 < len(data) else 0)
        if back > len(out):
            raise ImageError("block", "cannot be unpacked: it copies from before its beginning")
        piece = out[-back:][:count]
        out += (piece * (count // len(piece) + 1))[:count]
        at += 3 if wide else 2
    return _enough(bytes(out[:size]), size)
