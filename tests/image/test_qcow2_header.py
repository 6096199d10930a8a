"""The header of qcow2: every field and extension, and what is refused for which reason."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pyvirt.errors import FeatureError, ImageError
from pyvirt.image import BytesSource
from pyvirt.image.qcow2.header import BitmapsExtension, CryptoExtension, Header, read_header

FIELDS: dict[str, Any] = {
    "version": 3, "backing_file_offset": 0, "backing_file_size": 0, "cluster_bits": 16,
    "size": 1 << 30, "crypt_method": 0, "l1_size": 2, "l1_table_offset": 3 << 16,
    "refcount_table_offset": 1 << 16, "refcount_table_clusters": 1, "nb_snapshots": 0,
    "snapshots_offset": 0, "incompatible": 0, "compatible": 0, "autoclear": 0,
    "refcount_order": 4, "header_length": 112,
}  # fmt: skip


def image(*extensions: tuple[int, bytes], compression: int = 0, **fields: Any) -> bytes:
    values = list({**FIELDS, **fields}.values())
    head = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", *values) + bytes([compression]).ljust(8)
    head = head.replace(bytes([compression]) + b" " * 7, bytes([compression]) + bytes(7))
    for kind, content in extensions:
        head += struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)
    return (head + bytes(8)).ljust(4096, b"\0")


def read(content: bytes) -> Header:
    return read_header(BytesSource(content, "disk"))


def test_every_field_of_version_3() -> None:
    header = read(
        image((0xE2792ACA, b"raw"), (0x44415441, b"data"),
              (0x23852875, struct.pack(">IIQQ", 2, 0, 64, 1 << 20)),
              (0x0537BE77, struct.pack(">QQ", 1 << 21, 4096)), (0x12345678, b"what"),
              (0x6803F857, bytes([1, 5]) + b"new feature".ljust(46, b"\0")), (0xE2792ACB, b""),
              incompatible=0b1111, compatible=0b100001, autoclear=1, compression=1)
    )  # fmt: skip
    assert (header.version, header.cluster_size, header.size) == (3, 65536, 1 << 30)
    assert (header.backing_format, header.data_file) == ("raw", "data")
    assert header.bitmaps == BitmapsExtension(
        nb_bitmaps=2, bitmap_directory_size=64, bitmap_directory_offset=1 << 20
    )
    assert header.crypto == CryptoExtension(offset=1 << 21, length=4096)
    assert header.unknown_extensions == ((0x12345678, 4), (0xE2792ACB, 0))
    assert (header.dirty, header.corrupt, header.external) == (True, True, True)
    assert (header.compression, header.lazy_refcounts, header.raw_external) == ("zstd", True, False)
    assert header.features == (
        "dirty", "corrupt", "external-data-file", "compression-type", "lazy-refcounts",
        "new feature", "bitmaps",
    )  # fmt: skip


def test_backing_file() -> None:
    content = bytearray(image(backing_file_offset=1024, backing_file_size=9))
    content[1024:1033] = b"base\xff.img"
    assert read(bytes(content)).backing_file == "base\udcff.img"


def test_version_2_has_no_more_fields() -> None:
    content = image(version=2)[:72] + bytes(4000)
    header = read(content)
    assert (header.version, header.header_length, header.refcount_bits) == (2, 72, 16)


@pytest.mark.parametrize("order", range(7))
def test_refcounts_of_every_width(order: int) -> None:
    assert read(image(refcount_order=order)).refcount_bits == 1 << order


@pytest.mark.parametrize(
    ("fields", "offset", "reason"),
    [
        ({"version": 4}, 4, "has an unknown version"),
        ({"cluster_bits": 8}, 20, "has impossible clusters"),
        ({"cluster_bits": 22}, 20, "has impossible clusters"),
        ({"cluster_bits": 1 << 31}, 20, "has impossible clusters"),
        ({"size": 1 << 63, "cluster_bits": 21}, 24, "has an impossible size"),
        ({"crypt_method": 3}, 32, "is encrypted in an unknown way"),
        ({"crypt_method": 2}, 32, "is encrypted, but has no encryption header pointer"),
        ({"l1_size": 1}, 36, "has an L1 table that is too small"),
        ({"l1_size": (4 << 20) + 1}, 36, "has an L1 table over 32 MiB"),
        ({"l1_table_offset": 512}, 40, "has a table at an impossible place"),
        ({"refcount_table_offset": 3}, 48, "has a table at an impossible place"),
        ({"refcount_table_clusters": 0}, 56, "has a refcount table of impossible size"),
        ({"refcount_table_clusters": 129}, 56, "has a refcount table of impossible size"),
        ({"nb_snapshots": 65537}, 60, "has too many snapshots"),
        ({"nb_snapshots": 1, "snapshots_offset": 7}, 64, "has a table at an impossible place"),
        ({"refcount_order": 7}, 96, "has impossible refcounts"),
        ({"header_length": 103}, 100, "has an impossible header length"),
        ({"header_length": 1 << 17}, 100, "has an impossible header length"),
        ({"compression": 1}, 104, "names a compression that its feature bit denies"),
        ({"incompatible": 8}, 104, "names a compression that its feature bit denies"),
        ({"incompatible": 16, "cluster_bits": 13, "l1_size": 1 << 13}, 20,
         "has clusters too small for extended L2 entries"),
        ({"backing_file_offset": 512, "backing_file_size": 1024}, 16,
         "has a backing file name of impossible size"),
        ({"backing_file_offset": 65530, "backing_file_size": 100}, 16,
         "has a backing file name of impossible size"),
    ],
)  # fmt: skip
def test_refused(fields: dict[str, int], offset: int, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read(image(**fields))
    error = caught.value
    assert (error.path, error.table, error.offset, error.reason) == (
        "disk", "header", offset, reason,
    )  # fmt: skip
    assert str(error).startswith(f"disk: {reason} in the header at byte {offset}")


def test_unknown_features_are_refused_by_the_name_that_the_image_gives() -> None:
    names = bytes([0, 40]) + b"time\ntravel".ljust(46, b"\0")
    with pytest.raises(FeatureError) as caught:
        read(image((0x6803F857, names), incompatible=1 << 40 | 1 << 41))
    assert caught.value.features == ("time\ntravel", "incompatible feature bit 41")
    assert str(caught.value) == "disk: needs time\\ntravel, incompatible feature bit 41"


def test_an_unknown_compression_is_a_feature_too() -> None:
    with pytest.raises(FeatureError) as caught:
        read(image(incompatible=8, compression=9))
    assert caught.value.features == ("compression type 9",)


def test_an_extension_that_is_too_long() -> None:
    with pytest.raises(ImageError) as caught:
        read(image((0x12345678, b""))[:112] + struct.pack(">II", 1, 1 << 31) + bytes(4000))
    assert (caught.value.reason, caught.value.offset) == (
        "has a header extension that is too long", 112,
    )  # fmt: skip


def test_cut_at_every_length() -> None:
    content = image((0xE2792ACA, b"raw"))
    for cut in range(104):
        with pytest.raises(ImageError) as caught:
            read(content[:cut])
        assert (caught.value.path, caught.value.table) == ("disk", "header")
    with pytest.raises(ImageError):
        read(content[:122])  # In the middle of an extension.
    assert read(content[:136]).backing_format == "raw"


def test_a_raw_data_file_and_a_backing_file_exclude_each_other() -> None:
    content = bytearray(image(backing_file_offset=1024, backing_file_size=4, incompatible=4,
                              autoclear=2))  # fmt: skip
    content[1024:1028] = b"base"
    with pytest.raises(ImageError) as caught:
        read(bytes(content))
    assert caught.value.reason == "has a raw data file and a backing file"
