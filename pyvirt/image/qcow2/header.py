"""The header of a qcow2 image and its extensions, in the words of the specification.

docs/interop/qcow2.txt of QEMU. A header that QEMU would refuse is refused here too, for the
same reason; limits that are QEMU's own are named so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from pyvirt.errors import FeatureError, ImageError
from pyvirt.image.source import Source, exactly, name_of

MAGIC = b"QFI\xfb"

#: QEMU's limits: bytes of an L1 table and of the refcount table, snapshots, bitmaps, and bytes
#: of a backing file's name.
MOST_L1 = 32 << 20
MOST_REFCOUNT_TABLE = 8 << 20
MOST_SNAPSHOTS = 65536
MOST_BITMAPS = 65535
MOST_NAME = 1023

INCOMPATIBLE = ("dirty", "corrupt", "external-data-file", "compression-type", "extended-l2")
COMPATIBLE = ("lazy-refcounts",)
AUTOCLEAR = ("bitmaps", "raw-external-data")

#: Header extensions.
BACKING_FORMAT = 0xE2792ACA
FEATURE_NAMES = 0x6803F857
BITMAPS = 0x23852875
CRYPTO = 0x0537BE77
DATA_FILE = 0x44415441

CRYPT = {0: None, 1: "aes", 2: "luks"}
COMPRESSION = {0: "zlib", 1: "zstd"}

_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
_FIXED_NAMES = (
    "magic", "version", "backing_file_offset", "backing_file_size", "cluster_bits", "size",
    "crypt_method", "l1_size", "l1_table_offset", "refcount_table_offset",
    "refcount_table_clusters", "nb_snapshots", "snapshots_offset",
)  # fmt: skip
_MORE = struct.Struct(">QQQII")
_MORE_NAMES = (
    "incompatible_features", "compatible_features", "autoclear_features", "refcount_order",
    "header_length",
)  # fmt: skip


@frozen(kw_only=True)
class BitmapsExtension:
    """Where the bitmap directory is."""

    nb_bitmaps: int
    bitmap_directory_size: int
    bitmap_directory_offset: int


@frozen(kw_only=True)
class CryptoExtension:
    """Where the encryption header is; both in bytes."""

    offset: int
    length: int


@frozen(kw_only=True)
class Header:
    """All fields of the header and of the header extensions."""

    version: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_size: int
    l1_table_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    nb_snapshots: int
    snapshots_offset: int
    backing_file_offset: int
    backing_file_size: int
    incompatible_features: int = 0
    compatible_features: int = 0
    autoclear_features: int = 0
    refcount_order: int = 4
    header_length: int = 72
    compression_type: int = 0
    backing_file: str | None = None
    backing_format: str | None = None
    data_file: str | None = None
    bitmaps: BitmapsExtension | None = None
    crypto: CryptoExtension | None = None
    #: Names that the image itself gives to feature bits: (kind, bit) to name.
    feature_names: dict[tuple[int, int], str]
    #: Types and sizes of extensions that pyvirt does not know.
    unknown_extensions: tuple[tuple[int, int], ...] = ()

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def refcount_bits(self) -> int:
        return 1 << self.refcount_order

    @property
    def extended(self) -> bool:
        """Whether L2 entries have 16 bytes and clusters 32 subclusters."""
        return bool(self.incompatible_features & 16)

    @property
    def external(self) -> bool:
        """Whether guest clusters are in a data file."""
        return bool(self.incompatible_features & 4)

    @property
    def raw_external(self) -> bool:
        """Whether the data file can be read as a raw image."""
        return bool(self.autoclear_features & 2)

    @property
    def dirty(self) -> bool:
        """Refcounts may be wrong; `check` tells."""
        return bool(self.incompatible_features & 1)

    @property
    def corrupt(self) -> bool:
        """QEMU found damage and marked it."""
        return bool(self.incompatible_features & 2)

    @property
    def lazy_refcounts(self) -> bool:
        return bool(self.compatible_features & 1)

    @property
    def encryption(self) -> str | None:
        """"aes", "luks" or None."""
        return CRYPT[self.crypt_method]

    @property
    def compression(self) -> str:
        """What compressed clusters are packed with: "zlib" or "zstd"."""
        return COMPRESSION[self.compression_type]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all feature bits that are set."""
        return tuple(
            self._name(kind, names, bit)
            for kind, (names, bits) in enumerate(self._features())
            for bit in range(64)
            if bits >> bit & 1
        )

    def _features(self) -> tuple[tuple[tuple[str, ...], int], ...]:
        return (
            (INCOMPATIBLE, self.incompatible_features),
            (COMPATIBLE, self.compatible_features),
            (AUTOCLEAR, self.autoclear_features),
        )

    def _name(self, kind: int, names: tuple[str, ...], bit: int) -> str:
        if bit < len(names):
            return names[bit]
        word = ("incompatible", "compatible", "autoclear")[kind]
        return self.feature_names.get((kind, bit)) or f"{word} feature bit {bit}"

    @property
    def unknown_features(self) -> tuple[str, ...]:
        """Incompatible features that nobody who does not know them may ignore."""
        bits = self.incompatible_features >> len(INCOMPATIBLE) << len(INCOMPATIBLE)
        return tuple(self._name(0, INCOMPATIBLE, bit) for bit in range(64) if bits >> bit & 1)

    @property
    def clusters_per_table(self) -> int:
        """Guest clusters of one L2 table."""
        return self.cluster_size // (16 if self.extended else 8)

    @property
    def l1_needed(self) -> int:
        """Entries that an L1 table for `size` bytes has."""
        return -(-self.size // (self.cluster_size * self.clusters_per_table))


class _Reading:
    """Reads one header; knows the source for what it raises."""

    def __init__(self, source: Source, head: bytes) -> None:
        self.source, self.head, self.name = source, head, name_of(source)

    def fail(self, reason: str, offset: int, found: Any = None, expected: Any = None) -> ImageError:
        return ImageError(self.name, reason, format="qcow2", table="header", offset=offset,
                          found=found, expected=expected)  # fmt: skip

    def fixed(self) -> dict[str, Any]:
        if len(self.head) < _FIXED.size:
            raise self.fail("is truncated", len(self.head))
        fields = dict(zip(_FIXED_NAMES, _FIXED.unpack_from(self.head), strict=True))
        if fields.pop("magic") != MAGIC:
            raise self.fail("is no qcow2 image", 0, self.head[:4], MAGIC)
        if fields["version"] not in (2, 3):
            raise self.fail("has an unknown version", 4, fields["version"], "2 or 3")
        if not 9 <= fields["cluster_bits"] <= 21:
            raise self.fail("has impossible clusters", 20, fields["cluster_bits"], "9 to 21 bits")
        if fields["crypt_method"] not in CRYPT:
            raise self.fail("is encrypted in an unknown way", 32, fields["crypt_method"])
        return fields

    def more(self, cluster_size: int) -> dict[str, Any]:
        """The fields that version 3 added."""
        if len(self.head) < 104:
            raise self.fail("is truncated", len(self.head))
        fields = dict(zip(_MORE_NAMES, _MORE.unpack_from(self.head, 72), strict=True))
        length = fields["header_length"]
        if length < 104 or length > cluster_size or length % 8:
            raise self.fail("has an impossible header length", 100, length)
        if fields["refcount_order"] > 6:
            raise self.fail("has impossible refcounts", 96, fields["refcount_order"], "at most 6")
        if length > 104 and len(self.head) > 104:
            fields["compression_type"] = self.head[104]
        return fields

    def extensions(self, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        """Type, offset and content of each extension from `at` on, none beyond `end`."""
        while at + 8 <= end:
            kind, size = struct.unpack_from(">II", self.head, at)
            if kind == 0:
                return
            if size > end - at - 8:
                raise self.fail("has a header extension that is too long", at, size)
            yield kind, at, self.head[at + 8 : at + 8 + size]
            at += 8 + -(-size // 8) * 8

    def extension(self, kind: int, at: int, content: bytes) -> dict[str, Any]:
        """The fields of `Header` that one extension fills."""
        if kind == BACKING_FORMAT:
            return {"backing_format": _text(content)}
        if kind == DATA_FILE:
            return {"data_file": _text(content)}
        if kind == FEATURE_NAMES:
            return {"feature_names": _feature_names(content)}
        if kind == BITMAPS:
            if len(content) != 24:
                raise self.fail("has a bitmaps extension of a wrong size", at, len(content), 24)
            number, _, size, offset = struct.unpack(">IIQQ", content)
            return {"bitmaps": BitmapsExtension(nb_bitmaps=number, bitmap_directory_size=size,
                                                bitmap_directory_offset=offset)}  # fmt: skip
        if kind == CRYPTO:
            if len(content) != 16:
                raise self.fail("has an encryption header pointer of a wrong size", at,
                                len(content), 16)  # fmt: skip
            offset, length = struct.unpack(">QQ", content)
            return {"crypto": CryptoExtension(offset=offset, length=length)}
        return {}

    def backing(self, fields: dict[str, Any], cluster_size: int) -> str | None:
        offset, size = fields["backing_file_offset"], fields["backing_file_size"]
        if not offset:
            return None
        if size > MOST_NAME or offset + size > cluster_size:
            raise self.fail("has a backing file name of impossible size", 16, size)
        if offset + size > len(self.head):
            raise self.fail("is truncated", len(self.head))
        return _text(self.head[offset : offset + size]) if size else None


_KNOWN = {BACKING_FORMAT, FEATURE_NAMES, BITMAPS, CRYPTO, DATA_FILE}


def read_header(source: Source, head: bytes | None = None) -> Header:
    """The header of `source`, whose first bytes may be given; unknown features are refused."""
    reading = _Reading(source, source.pread(4096, 0) if head is None else head)
    fields = reading.fixed()
    size = 1 << fields["cluster_bits"]
    if fields["version"] == 3:
        fields |= reading.more(size)
    at = fields.get("header_length", 72)
    end = size
    if 0 < fields["backing_file_offset"] <= size:
        end = fields["backing_file_offset"]
    if len(reading.head) < min(size, source.size):
        reading.head = _whole(reading, at, size)
    unknown = []
    for kind, place, content in reading.extensions(at, min(end, len(reading.head))):
        fields |= reading.extension(kind, place, content)
        if kind not in _KNOWN:
            unknown.append((kind, len(content)))
    fields.setdefault("feature_names", {})
    header = Header(**fields, backing_file=reading.backing(fields, size),
                    unknown_extensions=tuple(unknown))  # fmt: skip
    _check(header, reading)
    return header


def _whole(reading: _Reading, at: int, size: int) -> bytes:
    """The first cluster, if what was read of it does not reach to the end of its extensions."""
    head = reading.head
    try:
        ended = any(kind == 0 for kind in _kinds(head, at))
    except struct.error:
        ended = False
    offset, length = struct.unpack_from(">QI", head, 8)
    if ended and (not offset or offset + length <= len(head)):
        return head
    return reading.source.pread(size, 0)


def _kinds(head: bytes, at: int) -> Iterator[int]:
    while True:
        kind, size = struct.unpack_from(">II", head, at)
        yield kind
        if kind == 0:
            return
        at += 8 + -(-size // 8) * 8


def _check(header: Header, reading: _Reading) -> None:
    """Refuse what QEMU refuses to open."""
    if header.unknown_features:
        raise FeatureError(reading.name, "qcow2", header.unknown_features)
    size = header.cluster_size
    if header.extended and header.cluster_bits < 14:
        raise reading.fail("has clusters too small for extended L2 entries", 20, size, "16384")
    if header.compression_type not in COMPRESSION:
        raise FeatureError(reading.name, "qcow2", (f"compression type {header.compression_type}",))
    if bool(header.compression_type) != bool(header.incompatible_features & 8):
        raise reading.fail("names a compression that its feature bit denies", 104)
    if header.size >= 1 << 63:
        raise reading.fail("has an impossible size", 24, header.size)
    if header.l1_size * 8 > MOST_L1:
        raise reading.fail("has an L1 table over 32 MiB", 36, header.l1_size)
    if header.l1_size < header.l1_needed:
        raise reading.fail("has an L1 table that is too small", 36, header.l1_size,
                           header.l1_needed)  # fmt: skip
    if header.nb_snapshots > MOST_SNAPSHOTS:
        raise reading.fail("has too many snapshots", 60, header.nb_snapshots, MOST_SNAPSHOTS)
    clusters = header.refcount_table_clusters
    if clusters == 0 or clusters * size > MOST_REFCOUNT_TABLE:
        raise reading.fail("has a refcount table of impossible size", 56, clusters)
    _check_place(reading, header.l1_table_offset, header.l1_size * 8, size, 40)
    _check_place(reading, header.refcount_table_offset, clusters * size, size, 48)
    _check_place(reading, header.snapshots_offset if header.nb_snapshots else 0, 0, size, 64)
    if header.raw_external and header.backing_file:
        raise reading.fail("has a raw data file and a backing file", 88)
    if header.crypt_method == 2 and header.crypto is None:
        raise reading.fail("is encrypted, but has no encryption header pointer", 32)


def _check_place(reading: _Reading, offset: int, size: int, cluster: int, field: int) -> None:
    if offset % cluster or offset + size > 1 << 63:
        raise reading.fail("has a table at an impossible place", field, offset)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _feature_names(content: bytes) -> dict[tuple[int, int], str]:
    rows = (content[at : at + 48] for at in range(0, len(content) - 47, 48))
    return {
        (row[0], row[1]): row[2:].rstrip(b"\0").decode("utf-8", "replace")
        for row in rows
        if row[0] < 3 and row[1] < 64
    }


def read_l1(source: Source, offset: int, entries: int) -> bytes:
    """An L1 table as it is in the file."""
    return exactly(source, entries * 8, offset, "L1 table") if entries else b""
