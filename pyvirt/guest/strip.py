"""Makes ELF files smaller by what the default guest never uses: each MB costs it 4 ms of boot.

Sections keep their numbers, because symbols refer to them; only their contents go.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

from pyvirt.errors import ProtocolError

_SECTION = struct.Struct("<IIQQQQIIQQ")
_NOBITS, _LOAD = 8, 1
_HEADER_SIZE = 64
_SIGNATURE = b"~Module signature appended~\n"
_SIGNATURE_INFO = 12  # struct module_signature, whose last four bytes are the length before it

#: Type information for BPF, and tables by which a stack trace through the module is exact
#: instead of guessed; Linux sorts them when it loads the module.
_UNUSED = frozenset({b".BTF", b".comment", b".orc_unwind", b".orc_unwind_ip",
                     b".rela.orc_unwind_ip"})  # fmt: skip


def module(data: bytes, name: str = "the module") -> bytes:
    """Kernel module *data* without its signature and the sections that are not used."""
    try:
        return _without(unsigned(data), _UNUSED)
    except (struct.error, IndexError, ValueError) as error:
        raise ProtocolError(name, f"is not a whole kernel module ({error})", 0) from None


def unsigned(data: bytes) -> bytes:
    """Module *data* without its appended signature: to verify one takes TCG 11 ms."""
    if not data.endswith(_SIGNATURE):
        return data
    end = len(data) - len(_SIGNATURE) - _SIGNATURE_INFO
    length = int.from_bytes(data[end + 8 : end + 12], "big")
    return data[: end - length] if length <= end else data


def kernel(data: bytes) -> bytes:
    """ELF kernel *data* without sections, and without the zeros at the end of its segments.

    Of Debian's 66 MB 25 are such zeros, which QEMU would read and copy at every start.
    """
    image = bytearray(data)
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    end = table + size * count
    for at in range(table, end, size):
        (kind,) = struct.unpack_from("<I", data, at)
        (start,) = struct.unpack_from("<Q", data, at + 8)
        (length,) = struct.unpack_from("<Q", data, at + 32)
        if kind == _LOAD:
            length = len(data[start : start + length].rstrip(b"\0"))
            struct.pack_into("<Q", image, at + 32, length)  # its size in memory stays
        end = max(end, start + length)
    struct.pack_into("<Q", image, 40, 0)
    struct.pack_into("<HHH", image, 58, 0, 0, 0)
    return bytes(image[:end])


def _without(data: bytes, names: Collection[bytes]) -> bytes:
    """Relocatable file *data* with the sections *names* empty."""
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, strings = struct.unpack_from("<HHH", data, 58)
    sections = [list(_SECTION.unpack_from(data, table + size * index)) for index in range(count)]
    texts = sections[strings][4]
    image = bytearray(data[:_HEADER_SIZE])
    for section in sorted(sections[1:], key=lambda section: int(section[4])):
        start = texts + section[0]
        if data[start : data.index(b"\0", start)] in names:
            section[5] = 0
        _place(image, section, data)
    image += bytes(-len(image) % 8)
    struct.pack_into("<Q", image, 40, len(image))
    return bytes(image) + b"".join(_SECTION.pack(*section) for section in sections)


def _place(image: bytearray, section: list[int], data: bytes) -> None:
    """Append the contents of *section*, aligned as it asks, and tell it where they are."""
    kind, start, size, alignment = section[1], section[4], section[5], max(section[8], 1)
    image += bytes(-len(image) % alignment)
    section[4] = len(image)
    if kind != _NOBITS:
        image += data[start : start + size]
