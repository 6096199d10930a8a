"""A small CD image: files of one folder, with short names (ISO 9660) and true ones (Joliet).

    sector   16       17      18    19..22        23        24    25...
            primary  Joliet  end   path tables   folder    folder  the files
                                   (2 + 2)       (short)   (true)

Sources: ECMA-119 and the Joliet specification. Numbers are written in both byte orders
where the standard says so. The same files give the same bytes: all dates are the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

SECTOR = 2048
_PRIMARY, _JOLIET = 23, 24
_TABLES = {_PRIMARY: (19, 20), _JOLIET: (21, 22)}
_FIRST_FILE = 25
# 1 January 2000: a date that was left out is 1900 to some readers, and 2036 to Linux.
_DATE = bytes([100, 1, 1, 0, 0, 0, 0])
_NO_LONG_DATE = b"0" * 16 + b"\0"


@frozen
class _File:
    name: str
    short: bytes
    content: bytes
    sector: int


def image(files: Mapping[str, bytes], label: str) -> bytes:
    """The image that holds `files`; `label` names the volume (at most 16 letters).

    Names are file names: no folders. Raises `ValueError` when they do not fit one sector.
    """
    entries = list(_laid_out(files))
    end = entries[-1].sector + _sectors(entries[-1].content) if entries else _FIRST_FILE
    short = [(entry.short, entry) for entry in entries]
    true = [(entry.name.encode("utf-16-be"), entry) for entry in entries]
    head = [
        _volume(1, label.upper().encode("ascii"), b"", _PRIMARY, end),
        _volume(2, label.encode("utf-16-be"), b"%/E", _JOLIET, end),
        b"\xffCD001\x01",
        *(_path_table(order, folder) for folder in _TABLES for order in "<>"),
        _folder(sorted(short, key=lambda item: item[0]), _PRIMARY),
        _folder(sorted(true, key=lambda item: item[0]), _JOLIET),
    ]
    return b"".join(
        [bytes(16 * SECTOR), *map(_padded, head), *(_padded(e.content) for e in entries)]
    )


def _laid_out(files: Mapping[str, bytes]) -> Iterator[_File]:
    sector = _FIRST_FILE
    for number, (name, content) in enumerate(sorted(files.items())):
        yield _File(name, _short(name, number), content, sector)
        sector += _sectors(content)


def _short(name: str, number: int) -> bytes:
    """A name of 8 letters that is unique in the folder, and as near as can be."""
    letters = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
    return f"{letters.upper()[:6]}{number:02}.;1".encode("ascii")


def _volume(kind: int, label: bytes, escape: bytes, folder: int, end: int) -> bytes:
    little, big = _TABLES[folder]
    blank = b"\0 " if kind == 2 else b" "
    return b"".join([
        struct.pack("<B5sBx", kind, b"CD001", 1),
        _blank(32, blank),
        _text(label, 32, blank),
        bytes(8),
        _both32(end),
        escape.ljust(32, b"\0"),
        _both16(1),
        _both16(1),
        _both16(SECTOR),
        _both32(10),  # the size of a path table that has only the root
        struct.pack("<II", little, 0),
        struct.pack(">II", big, 0),
        _record(b"\0", folder, SECTOR, directory=True),
        _blank(128 * 4, blank),
        _blank(37, blank) + _blank(37, blank) + _blank(37, blank),
        _NO_LONG_DATE * 4,
        b"\x01",
    ])  # fmt: skip


def _path_table(order: str, folder: int) -> bytes:
    return struct.pack(f"{order}BBIH", 1, 0, folder, 1) + b"\0\0"


def _folder(entries: Sequence[tuple[bytes, _File]], sector: int) -> bytes:
    records = [_record(name, sector, SECTOR, directory=True) for name in (b"\0", b"\1")]
    records += [_record(name, file.sector, len(file.content)) for name, file in entries]
    folder = b"".join(records)
    if len(folder) > SECTOR:
        raise ValueError(f"{len(entries)} files do not fit one folder of {SECTOR} bytes")
    return folder


def _record(name: bytes, sector: int, size: int, directory: bool = False) -> bytes:
    pad = b"" if len(name) % 2 else b"\0"
    length = 33 + len(name) + len(pad)
    flags = 2 if directory else 0
    return b"".join([
        struct.pack("<BB", length, 0),
        _both32(sector),
        _both32(size),
        _DATE,
        struct.pack("<BBB", flags, 0, 0),
        _both16(1),
        struct.pack("<B", len(name)),
        name,
        pad,
    ])  # fmt: skip


def _both16(number: int) -> bytes:
    return struct.pack("<H", number) + struct.pack(">H", number)


def _both32(number: int) -> bytes:
    return struct.pack("<I", number) + struct.pack(">I", number)


def _text(text: bytes, size: int, blank: bytes) -> bytes:
    return text + _blank(size - len(text), blank)


def _blank(size: int, blank: bytes) -> bytes:
    return (blank * size)[:size]


def _sectors(content: bytes) -> int:
    return -(-len(content) // SECTOR)


def _padded(content: bytes) -> bytes:
    return content.ljust(_sectors(content) * SECTOR, b"\0")
