"""Compressed blocks unpacked, never to more bytes than the block has."""

from __future__ import annotations

import bz2
import zlib

from pyvirt.errors import ImageError


def raw_deflate(data: bytes, size: int) -> bytes:
    """A deflate stream without header; what follows it is ignored."""
    return _inflate(zlib.decompressobj(-15), data, size)


def zlib_stream(data: bytes, size: int) -> bytes:
    """A deflate stream with zlib's header; what follows it is ignored."""
    return _inflate(zlib.decompressobj(), data, size)


def bzip2_stream(data: bytes, size: int) -> bytes:
    """A bzip2 stream."""
    try:
        return _whole(bz2.BZ2Decompressor().decompress(data, size), size)
    except (OSError, ValueError) as error:
        raise ImageError("block", f"cannot be unpacked: {error}") from error


def _inflate(stream: zlib._Decompress, data: bytes, size: int) -> bytes:
    try:
        return _whole(stream.decompress(data, size), size)
    except zlib.error as error:
        raise ImageError("block", f"cannot be unpacked: {error}") from error


def _whole(content: bytes, size: int) -> bytes:
    if len(content) < size:
        raise ImageError("block", "is too short", found=len(content), expected=size)
    return content
