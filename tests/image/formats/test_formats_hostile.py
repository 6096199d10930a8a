"""Damaged images: every format answers or raises its own error, soon, and in bounded memory."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import imagebuilders as build
from support.formats import layer_of

from pyvirt.errors import PyvirtError
from pyvirt.image.budget import Budget
from pyvirt.image.detection import detect
from pyvirt.image.formats import format_module
from pyvirt.image.layer import Reference
from pyvirt.image.source import BytesSource, Source

MIB = 1 << 20
NOISE = random.Random(5).randbytes(1 << 20)
ONE, TWO = NOISE[:4096], NOISE[4096:8192]
TEXT = b"text" * 1024

QED = (
    b"QED\0"
    + b"".join(n.to_bytes(4, "little") for n in (4096, 1, 1))
    + b"".join(n.to_bytes(8, "little") for n in (0, 0, 0, 4096, 1 << 20))
).ljust(4096, b"\0")
QED += (8192).to_bytes(8, "little").ljust(4096, b"\0")
QED += b"".join(n.to_bytes(8, "little") for n in (12288, 1, 0, 12288)).ljust(4096, b"\0") + ONE

PARALLELS = b"WithoutFreeSpace" + b"".join(
    n.to_bytes(4, "little") for n in (2, 16, 1, 8, 4, 32, 0, 0, 1, 0, 0, 0)
)
PARALLELS += b"".join(n.to_bytes(4, "little") for n in (1, 0, 9, 0))
PARALLELS = PARALLELS.ljust(512, b"\0") + ONE + TWO

LUKS1 = b"LUKS\xba\xbe\0\1" + b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0")
LUKS1 += b"sha256".ljust(32, b"\0") + (4).to_bytes(4, "big") + (64).to_bytes(4, "big")
LUKS1 = LUKS1.ljust(208, b"\0") + (0xDEAD).to_bytes(4, "big").ljust(48, b"\0") * 8
LUKS1 = LUKS1.ljust(2048, b"\0") + NOISE[:4096]

ISO = bytes(32768) + b"\1CD001\1" + bytes(73) + (18).to_bytes(4, "little") + bytes(44)
ISO += (2048).to_bytes(2, "little")
ISO = ISO.ljust(34816, b"\0") + b"\xffCD001\1".ljust(2048, b"\0")

DMG = [("raw", ONE), ("zlib", TEXT), ("zero", bytes(65536)), ("bzip2", TEXT), ("adc", TEXT[:512])]


def stream_optimized() -> bytes:
    """A hosted sparse extent whose one grain is compressed behind its marker."""
    stored = zlib.compress(TEXT)
    grain = struct.pack("<QI", 8, len(stored)) + stored
    head = b"KDMV" + struct.pack("<IIQQQQIQQQB4sH", 3, 0x30001, 64, 8, 1, 1, 512, 0, 2, 8, 0,
                                 b"\n \r\n", 1)  # fmt: skip
    text = build.descriptor("streamOptimized", ['RW 64 SPARSE "x.vmdk"'])
    tables = struct.pack("<I", 3).ljust(512, b"\0") + struct.pack("<8I", 0, 7, *[0] * 6)
    return (head.ljust(512, b"\0") + text.ljust(512, b"\0") + tables).ljust(7 * 512, b"\0") + grain


def vhdx_with_log() -> bytes:
    image = bytearray(build.vhdx_differencing({0: NOISE, 2: {5: NOISE[:512]}}, 3 << 20, "x"))
    entry = build.vhdx_log_entry(
        {5 << 20: ONE}, [(6 << 20, 8192)], sequence=7, tail=0, file_size=len(image)
    )
    image[1 << 20 : (1 << 20) + len(entry)] = entry
    image[131072 : 131072 + 4096] = build.vhdx_header(9, (1 << 20, 1 << 20))
    return bytes(image)


SMALL: dict[str, tuple[str, Callable[[], bytes]]] = {
    "qed": ("qed", lambda: QED),
    "qcow": ("qcow", lambda: build.qcow({0: TEXT, 3: TEXT}, 5 * 4096)),
    "vdi": ("vdi", lambda: build.vdi({1: ONE, 2: None}, 4, link=None)),
    "vhd": ("vpc", lambda: build.vhd_differencing({1: {0: NOISE[:512]}}, 3, ".\\x")),
    "parallels": ("parallels", lambda: PARALLELS),
    "bochs": ("bochs", lambda: build.bochs({2: {0: NOISE[:512]}}, 4)),
    "cloop": ("cloop", lambda: build.cloop(TEXT * 2)),
    "dmg": ("dmg", lambda: build.dmg(DMG)),
    "dmg-resources": ("dmg", lambda: build.dmg(DMG, resources=True)),
    "luks1": ("luks", lambda: LUKS1),
    "luks2": ("luks", lambda: build.luks2(ONE)),
    "iso9660": ("iso9660", lambda: ISO),
    "vmdk-cowd": ("vmdk", lambda: build.cowd({0: ONE}, 10)),
    "vmdk-sesparse": ("vmdk", lambda: build.sesparse({0: ONE, 1: None}, 10)),
    "vmdk-stream": ("vmdk", stream_optimized),
    "vmdk-descriptor": (
        "vmdk",
        lambda: build.descriptor(
            "custom", ['RW 8 FLAT "a" 0', "RDONLY 8 ZERO", 'RW 80 SPARSE "b"'], parent=(7, "p")
        ),
    ),
}
BIG = {"vhdx": ("vhdx", vhdx_with_log)}
ALL = {**SMALL, **BIG}


@cache
def image(case: str) -> bytes:
    return ALL[case][1]()


def companion(reference: Reference) -> Source:
    return BytesSource(build.cowd({0: ONE}, 10) if reference.name == "b" else bytes(8192))


def look(data: bytes, format: str, budget: Budget) -> bool:
    """Open, map and read a bit; whether it worked. Anything but an own error is a failure."""
    try:
        layer = format_module(format).open(BytesSource(data), budget=budget, siblings=companion)
        end = 0
        for count, extent in enumerate(layer.extents()):
            assert extent.start == end
            end = extent.end
            source = layer.sources[extent.file] if extent.allocated else None
            if source is not None and not extent.compressed:
                assert extent.host + extent.length <= source.size
            if source is not None and extent.compressed and count < 8:
                layer.inflate(source.pread(extent.stored, extent.host), extent.length)
        assert end == layer.size
        assert layer.references is not None
        return True
    except PyvirtError:
        return False


# Little memory, so that a claim of much is an error here.
LITTLE = Budget(memory=4 << 20)


@pytest.mark.parametrize("case", ALL)
def test_a_good_one_is_read(case: str) -> None:
    format = ALL[case][0]
    assert look(image(case), format, Budget())
    assert detect(BytesSource(image(case)))[0].format == format


@pytest.mark.parametrize("case", SMALL)
def test_cut_at_every_length(case: str) -> None:
    data, format = image(case), SMALL[case][0]
    near = {*range(0, min(len(data), 700)), *range(max(0, len(data) - 700), len(data))}
    for size in sorted({*near, *range(0, len(data), 97)}):
        look(data[:size], format, LITTLE)
        detect(BytesSource(data[:size]))


def test_a_vhdx_cut_at_many_lengths() -> None:
    data = image("vhdx")
    for size in (*range(0, 1024, 50), *range(1024, len(data), 65536 - 7)):
        assert not look(data[:size], "vhdx", LITTLE)


Damage = st.lists(
    st.tuples(
        st.integers(0, 1 << 30),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([b"\xff" * 8, b"\xff" * 4, bytes(8), b"\x7f" + b"\xff" * 7]),
        ),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, damage: list[tuple[int, bytes]], *areas: tuple[int, int]) -> bytes:
    """Some bytes replaced, inside one of the areas, which are where the tables are."""
    result = bytearray(data)
    for place, value in damage:
        start, size = areas[(place >> 20) % len(areas)]
        start = max(0, start)
        at = start + place % max(1, min(size, len(data) - start))
        result[at : at + len(value)] = value[: len(data) - at]
        assert len(result) == len(data)
    return bytes(result)


@pytest.mark.parametrize("case", SMALL)
@settings(max_examples=150, deadline=None)
@given(damage=Damage)
@example(damage=[(0, b"\0")])
def test_damage_anywhere(case: str, damage: list[tuple[int, bytes]]) -> None:
    data, format = image(case), SMALL[case][0]
    broken = damaged(data, damage, (0, 128), (0, 1024), (0, len(data)), (len(data) - 512, 512))
    look(broken, format, LITTLE)
    detect(BytesSource(broken))


@settings(max_examples=60, deadline=None)
@given(damage=Damage)
def test_damage_in_a_vhdx(damage: list[tuple[int, bytes]]) -> None:
    areas = ((65536, 80), (131072, 80), (MIB, 9000), (2 * MIB, 400), (2 * MIB + 65536, 300))
    look(damaged(image("vhdx"), damage, *areas, (3 * MIB, 64), (4 * MIB, 4096)), "vhdx", LITTLE)


@pytest.mark.parametrize("case", ["luks2", "vhd"])
@settings(max_examples=100, deadline=None)
@given(damage=Damage)
def test_damage_behind_a_good_checksum(case: str, damage: list[tuple[int, bytes]]) -> None:
    """Checksums protect nobody from those who can compute them."""
    data = image(case)
    if case == "luks2":
        broken = bytearray(damaged(data, damage, (8, 440), (4096, 300)))
        broken[448:512] = bytes(64)
        broken[448:480] = hashlib.sha256(bytes(broken[:0x4000])).digest()
    else:
        broken = bytearray(damaged(data, damage, (8, 500), (512, 1024)))
        broken[:512] = build._summed(bytes(broken[:512]), 64)
        broken[-512:] = broken[:512]
        broken[512:1536] = build._summed(bytes(broken[512:1536]), 36)
    look(bytes(broken), ALL[case][0], LITTLE)


@given(text=st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_as_a_descriptor(text: str) -> None:
    look(b'version=1\ncreateType="custom"\n' + text.encode("utf-8", "ignore"), "vmdk", LITTLE)


# -- What would take for ever ------------------------------------------------------------------


def test_one_table_is_not_read_again_for_each_entry_that_names_it() -> None:
    data = bytearray(QED)
    data[4096:8192] = (8192).to_bytes(8, "little") * 512
    data[48:56] = (512 * 512 * 4096).to_bytes(8, "little")
    with pytest.raises(PyvirtError, match="names tables that overlap"):
        layer_of(BytesSource(bytes(data)), "qed").extents()


def test_a_log_that_is_all_headers_is_refused() -> None:
    image = bytearray(build.vhdx_differencing({}, 1 << 20, "x"))
    head = b"loge" + bytes(4) + (1 << 20).to_bytes(4, "little") + bytes(4)
    head += (1).to_bytes(8, "little") + bytes(8) + build.LOG_GUID.bytes_le + bytes(16)
    for at in range(1 << 20, 2 << 20, 4096):
        image[at : at + 64] = head
    image[131072 : 131072 + 4096] = build.vhdx_header(9, (1 << 20, 1 << 20))
    with pytest.raises(PyvirtError, match="asks for more work than its size explains"):
        layer_of(BytesSource(bytes(image)), "vhdx")


@pytest.mark.parametrize("kind", ["zlib", "bzip2", "lzma"])
def test_a_bomb_or_a_wrong_checksum_is_no_block(kind: str) -> None:
    """As in QEMU, a stream must end with its block; its checksum stands at its end."""
    pack = {"zlib": zlib.compress, "bzip2": bz2.compress, "lzma": lzma.compress}[kind]
    layer = layer_of(BytesSource(build.dmg([(kind, TEXT)])), "dmg")
    assert layer.inflate(pack(TEXT), len(TEXT)) == TEXT
    with pytest.raises(PyvirtError, match="its stream does not end with it"):
        layer.inflate(pack(bytes(8 << 20)), 512)
    with pytest.raises(PyvirtError, match="is too short"):
        layer.inflate(pack(TEXT), len(TEXT) + 1)
    whole = pack(TEXT)
    for at in range(len(whole) - 4, len(whole) - 1):
        broken = bytearray(whole)
        broken[at] ^= 1
        with pytest.raises(PyvirtError, match="cannot be unpacked"):
            layer.inflate(bytes(broken), len(TEXT))


def test_a_disk_of_two_to_the_63_is_refused_or_mapped() -> None:
    data = bytearray(build.qcow({0: TEXT}, 5 * 4096))
    for size in (1 << 63, (1 << 63) - 512, (1 << 64) - 1):
        data[24:32] = size.to_bytes(8, "big")
        assert not look(bytes(data), "qcow", LITTLE)
