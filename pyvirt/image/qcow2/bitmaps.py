"""Persistent bitmaps of a qcow2 image, read offline."""

from __future__ import annotations

import struct

from attrs import frozen

from pyvirt._native.columns import Columns, Reader
from pyvirt._native.qcow2 import Geometry, dirty
from pyvirt.errors import BudgetError, ImageError
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Extents
from pyvirt.image.qcow2.header import MOST_BITMAPS, Header
from pyvirt.image.source import Source, exactly, name_of

_ENTRY = struct.Struct(">QIIBBHI")
#: QEMU's limits: bytes of the directory and of a table, and of a name.
MOST_DIRECTORY = 64 << 20
MOST_TABLE = 32 << 20
IN_USE, AUTO, EXTRA_DATA_COMPATIBLE = 1, 2, 4


@frozen(kw_only=True)
class Bitmap:
    """A dirty bitmap: each bit stands for `granularity` bytes of the guest."""

    name: str
    granularity: int
    #: "in-use", "auto", "extra-data-compatible".
    flags: tuple[str, ...]
    type: int
    bitmap_table_offset: int
    bitmap_table_size: int
    extra_data: bytes = b""
    #: Whether the image vouches for it: neither in use nor of an older state.
    consistent: bool = True


def read_bitmaps(source: Source, header: Header) -> tuple[Bitmap, ...]:
    """All bitmaps in the directory, also those that are not consistent."""
    if header.bitmaps is None:
        return ()
    reader = _Directory(source, header)
    return tuple(reader.next() for _ in range(header.bitmaps.nb_bitmaps))


class _Directory:
    def __init__(self, source: Source, header: Header) -> None:
        assert header.bitmaps is not None
        self.source, self.header, self.at = source, header, 0
        self.offset = header.bitmaps.bitmap_directory_offset
        size = header.bitmaps.bitmap_directory_size
        if size > MOST_DIRECTORY:
            raise self.fail("is over 64 MiB", size)
        if not 0 < header.bitmaps.nb_bitmaps <= MOST_BITMAPS:
            raise self.fail("has an impossible number of bitmaps", header.bitmaps.nb_bitmaps)
        self.content = exactly(source, min(size, source.size), self.offset, "bitmap directory")

    def fail(self, reason: str, found: object = None) -> ImageError:
        return ImageError(name_of(self.source), reason, format="qcow2", table="bitmap directory",
                          offset=self.offset + self.at, found=found)  # fmt: skip

    def next(self) -> Bitmap:
        if len(self.content) - self.at < _ENTRY.size:
            raise self.fail("is truncated")
        offset, entries, flags, kind, granularity, name_size, extra = _ENTRY.unpack_from(
            self.content, self.at
        )
        end = self.at + _ENTRY.size + extra + name_size
        if end > len(self.content):
            raise self.fail("is truncated")
        if granularity > 31 or granularity < 9:
            raise self.fail("has a bitmap of impossible granularity", granularity)
        if entries * 8 > MOST_TABLE:
            raise self.fail("has a bitmap with a table over 32 MiB", entries)
        words = ((IN_USE, "in-use"), (AUTO, "auto"),
                 (EXTRA_DATA_COMPATIBLE, "extra-data-compatible"))  # fmt: skip
        bitmap = Bitmap(
            name=self.content[end - name_size : end].decode("utf-8", "surrogateescape"),
            granularity=1 << granularity,
            flags=tuple(word for bit, word in words if flags & bit), type=kind,
            bitmap_table_offset=offset, bitmap_table_size=entries,
            extra_data=self.content[self.at + _ENTRY.size :][:extra],
            consistent=bool(self.header.autoclear_features & 1) and not flags & IN_USE,
        )  # fmt: skip
        self.at += -(-(end - self.at) // 8) * 8
        return bitmap


def read_bits(
    geometry: Geometry, reader: Reader, header: Header, bitmap: Bitmap, most: int
) -> bytearray:
    """The bits, least significant first, 0 beyond the disk's end; at most `most` bytes."""
    bits = -(-header.size // bitmap.granularity)
    size = -(-bits // 8)
    clusters = -(-size // header.cluster_size)
    if size > most:
        raise BudgetError(f"bitmap {bitmap.name}", most)
    if bitmap.bitmap_table_size < clusters:
        raise ImageError(
            name_of(reader.source), f"bitmap {bitmap.name} is shorter than the disk",
            format="qcow2", table="bitmap table", offset=bitmap.bitmap_table_offset,
            found=bitmap.bitmap_table_size, expected=clusters,
        )  # fmt: skip
    table = exactly(reader.source, 8 * clusters, bitmap.bitmap_table_offset, "bitmap table")
    result = bytearray(size)
    geometry.bitmap(reader, table, bitmap.bitmap_table_offset, result)
    if bits % 8 and result:
        result[-1] &= (1 << bits % 8) - 1
    return result


def dirty_ranges(bits: bytearray, bitmap: Bitmap, size: int, budget: Budget) -> Extents:
    """The parts of a disk of `size` bytes whose bits are set, neighbours as one."""
    columns = Columns(budget.extents(4 * len(bits) + 1))
    dirty(bits, bitmap.granularity.bit_length() - 1, size, columns)
    return Extents(columns)
