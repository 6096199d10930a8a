"""Small ELF files, made of what a test says is in them."""

from __future__ import annotations

import struct

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")


def _header(kind: int, segments: int, sections: int, table: int, names: int) -> bytes:
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    words = (kind, 62, 1, 0, 64 if segments else 0, table, 0, 64, 56, segments, 64, sections, names)
    return ident + struct.pack("<HHIQQQIHHHHHH", *words)


def relocatable(**contents: bytes) -> bytes:
    """A file such as a kernel module, with these sections (``modinfo=`` makes `.modinfo`)."""
    texts = b"\0" + b"".join(b".%s\0" % name.encode() for name in contents) + b".names\0"
    body, headers = b"", [_SECTION.pack(*[0] * 10)]
    for name, data in {**contents, "names": texts}.items():
        body += bytes(-len(body) % 8)
        at = texts.index(b".%s\0" % name.encode())
        headers.append(_SECTION.pack(at, 1, 0, 0, 64 + len(body), len(data), 0, 0, 8, 0))
        body += data
    body += bytes(-len(body) % 8)
    count = len(headers)
    return _header(1, 0, count, 64 + len(body), count - 1) + body + b"".join(headers)


def executable(*loads: bytes, note: bytes = b"") -> bytes:
    """A program with these loaded segments and perhaps a note."""
    pieces = [(1, data) for data in loads] + ([(4, note)] if note else [])
    start, table, body = 64 + 56 * len(pieces), b"", b""
    for kind, data in pieces:
        sizes = (start + len(body), 0, 0, len(data), len(data), 8)
        table += _SEGMENT.pack(kind, 5, *sizes)
        body += data
    return _header(2, len(pieces), 0, 0, 0) + table + body


def pvh_note(entry: int = 0x1000000) -> bytes:
    """The note with which a kernel says where PVH enters it."""
    return struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", entry)


def bzimage(payload: bytes, release: str = "6.1.0-test") -> bytes:
    """A kernel image as the boot protocol 2.15 lays it out, with one sector of setup code."""
    image = bytearray(1024)
    image[0x1F1] = 1
    text = f"{release} (me@host) #1\0".encode()
    struct.pack_into("<4sH", image, 0x202, b"HdrS", 0x20F)
    struct.pack_into("<H", image, 0x20E, 0x300 - 0x200)
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    image[0x300 : 0x300 + len(text)] = text
    return bytes(image) + bytes(16) + payload
