"""Images that QEMU does not write: built here, and read by QEMU too where it can."""

from __future__ import annotations

import random
import shutil
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from support import imagebuilders as build
from support.formats import content, layer_of, no_sibling, qemu_img, read, sibling, written

from pyvirt.errors import FeatureError, ImageError
from pyvirt.image.detection import detect
from pyvirt.image.formats.parent import check_parent
from pyvirt.image.source import BytesSource, FileSource
from pyvirt.image.structure import Place

needs_qemu = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-utils")

NOISE = random.Random(5).randbytes(1 << 20)
MIB = 1 << 20
ONE, TWO, THREE = NOISE[:4096], NOISE[4096:8192], NOISE[8192:12288]


def sector(number: int) -> bytes:
    return NOISE[number * 512 : (number + 1) * 512]


DMG = [
    ("raw", NOISE[:8192]),
    ("zlib", b"text" * 512),
    ("zero", bytes(65536)),
    ("ignore", bytes(512)),
    ("zlib", NOISE[512:1536]),
]

BUILT: dict[str, tuple[str, Callable[[], bytes]]] = {
    "bochs": (
        "bochs",
        lambda: build.bochs({2: {0: sector(1), 7: sector(2)}, 0: {3: sector(3)}}, 4),
    ),
    "bochs-big-extents": ("bochs", lambda: build.bochs({1: {17: sector(1)}}, 3, 1 << 16)),
    "cloop": ("cloop", lambda: build.cloop(NOISE[:40960] + bytes(8192))),
    "dmg": ("dmg", lambda: build.dmg(DMG)),
    "dmg-resources": ("dmg", lambda: build.dmg(DMG, resources=True)),
    "qcow-compressed": (
        "qcow",
        lambda: build.qcow({0: b"text" * 1024, 3: bytes(4096), 7: ONE[:256] * 16}, 9 * 4096),
    ),
    "qcow-compressed-end": ("qcow", lambda: build.qcow({2: b"end." * 1024}, 2 * 4096 + 1024)),
}


@needs_qemu
@pytest.mark.parametrize("case", BUILT)
def test_is_read_as_qemu_reads_it(case: str, tmp_path: Path) -> None:
    format, make = BUILT[case]
    path = tmp_path / "image"
    path.write_bytes(make())
    with FileSource(path) as source:
        layer = layer_of(source, format)
        assert detect(source)[0].format == format
        assert read(layer) == content(path, format)
        assert any(extent.allocated for extent in layer.extents())


@needs_qemu
@pytest.mark.parametrize(
    ("create_type", "kind", "extent"),
    [
        ("vmfsSparse", "VMFSSPARSE", build.cowd({0: ONE, 5: TWO, 9: THREE}, 10)),
        ("seSparse", "SESPARSE", build.sesparse({0: ONE, 2: None, 5: TWO, 9: THREE}, 10)),
        ("vmfs", "VMFS", NOISE[:40960]),
    ],
)
def test_extents_of_esx_are_read_as_qemu_reads_them(
    create_type: str, kind: str, extent: bytes, tmp_path: Path
) -> None:
    (tmp_path / "extent.vmdk").write_bytes(extent)
    path = tmp_path / "image.vmdk"
    path.write_bytes(build.descriptor(create_type, [f'RW 80 {kind} "extent.vmdk"']))
    opened: list[FileSource] = []
    with FileSource(path) as source:
        layer = layer_of(source, "vmdk", sibling(tmp_path, opened))
        assert read(layer) == content(path, "vmdk")
        assert any(one.allocated for one in layer.extents())
    opened[0].close()


def test_other_files_are_opened_when_their_bytes_are_asked_for() -> None:
    lines = ['RW 8 FLAT "/etc/shadow" 0', "RW 8 ZERO"]
    source = BytesSource(build.descriptor("monolithicFlat", lines, parent=(7, "base.vmdk")))
    layer = layer_of(source, "vmdk", no_sibling)
    assert layer.size == 8192
    assert [(one.kind, one.name, one.format) for one in layer.references] == [
        ("backing", "base.vmdk", "vmdk"),
        ("extent", "/etc/shadow", "raw"),
    ]
    assert layer.info.descriptor.parent_cid == 7


def test_a_changed_parent_is_told_by_its_cid() -> None:
    lines = ["RW 8 ZERO"]
    child = build.descriptor("custom", lines, cid=2, parent=(7, "base.vmdk"))
    layer = layer_of(BytesSource(child), "vmdk")
    check_parent(layer, layer_of(BytesSource(build.descriptor("custom", lines, cid=7)), "vmdk"))
    with pytest.raises(ImageError) as caught:
        check_parent(layer, layer_of(BytesSource(build.descriptor("custom", lines)), "vmdk"))
    assert (caught.value.found, caught.value.expected) == ("CID 00000001", "CID 00000007")


def test_a_differencing_vdi_lies_over_its_parent() -> None:
    link = uuid.UUID(int=42)
    layer = layer_of(BytesSource(build.vdi({1: ONE, 2: None}, 4, link=link)), "vdi")
    assert read(layer, b"\7" * 16384) == b"\7" * 4096 + ONE + bytes(4096) + b"\7" * 4096
    assert layer.references[0].name == f"uuid:{link}"
    parent = layer_of(BytesSource(build.vdi({}, 4, link=None)), "vdi")
    with pytest.raises(ImageError, match="has another parent"):
        check_parent(layer, parent)


def test_a_differencing_vhd_lies_over_its_parent() -> None:
    blocks = {1: {0: sector(1), 7: sector(2)}, 3: {1: sector(3)}}
    image = build.vhd_differencing(blocks, 4, ".\\base.vhd")
    source = BytesSource(image)
    layer = layer_of(source, "vpc")
    expected = bytearray(b"\7" * 16384)
    for block, sectors in blocks.items():
        for number, data in sectors.items():
            at = block * 4096 + number * 512
            expected[at : at + 512] = data
    assert read(layer, b"\7" * 16384) == expected
    assert [one.name for one in layer.references] == ["./base.vhd", ".\\base.vhd"]


@pytest.mark.parametrize("size", [512, 4096])
def test_a_differencing_vhdx_lies_over_its_parent(size: int) -> None:
    some = {0: NOISE[:size], MIB // size - 1: NOISE[size : 2 * size]}
    blocks = {0: NOISE, 1: None, 3: some}
    image = build.vhdx_differencing(blocks, 5 * MIB, ".\\base.vhdx", size)
    layer = layer_of(BytesSource(image), "vhdx")
    expected = bytearray(b"\7" * 5 * MIB)
    expected[: 2 * MIB] = NOISE + bytes(MIB)
    for number, data in some.items():
        expected[3 * MIB + number * size : 3 * MIB + (number + 1) * size] = data
    assert read(layer, b"\7" * 5 * MIB) == expected
    assert layer.references[0].name == "./base.vhdx"
    assert layer.info.metadata.parent_locator["parent_linkage"] == "{x}"


# -- The log of a VHDX ------------------------------------------------------------------------


def with_log(path: Path, *entries: tuple[int, bytes]) -> None:
    """Put entries into the log of an image that QEMU made, and headers that name it."""
    with path.open("r+b") as file:
        for offset, entry in entries:
            file.seek(MIB + offset)
            file.write(entry)
        for start, sequence in ((65536, 100), (131072, 101)):
            file.seek(start)
            file.write(build.vhdx_header(sequence, (MIB, MIB)))


@needs_qemu
def test_the_log_is_replayed_in_memory_as_qemu_replays_it_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "image", "vhdx", 8 * MIB, block_size="1M")
    with FileSource(path) as source:
        layer = layer_of(source, "vhdx")
        data = next(one.host for one in layer.extents() if one.allocated)
        size = source.size
    first = build.vhdx_log_entry({data: ONE}, [], sequence=5, tail=4096, file_size=size)
    more = {"sequence": 6, "tail": 4096, "file_size": size}
    second = build.vhdx_log_entry({data + 8192: TWO}, [(data + 4096, 4096)], **more)  # type: ignore[arg-type]
    stale = build.vhdx_log_entry({data: THREE}, [], sequence=2, tail=65536, file_size=size)
    with_log(path, (4096, first), (4096 + len(first), second), (65536, stale))
    with FileSource(path) as source:
        layer = layer_of(source, "vhdx")
        assert layer.info.log_replayed
        ours = read(layer)
        assert ours[:12288] == ONE + bytes(4096) + TWO
    qemu_img("check", "-q", "-r", "all", "-f", "vhdx", path)
    assert ours == content(path, "vhdx")


@needs_qemu
def test_a_log_that_was_cut_off_is_not_replayed(tmp_path: Path) -> None:
    path = written(tmp_path / "image", "vhdx", 3 * MIB, block_size="1M")
    size = path.stat().st_size
    entry = build.vhdx_log_entry({4 * MIB: ONE}, [], sequence=1, tail=0, file_size=size)
    with_log(path, (0, entry[:-1] + b"\1"))
    with FileSource(path) as source:
        assert not layer_of(source, "vhdx").info.log_replayed


def test_the_newer_header_counts_unless_it_is_broken() -> None:
    image = bytearray(build.vhdx_differencing({}, MIB, "x"))
    assert layer_of(BytesSource(bytes(image)), "vhdx").info.header.sequence_number == 2
    image[131072 + 100] ^= 1
    assert layer_of(BytesSource(bytes(image)), "vhdx").info.header.sequence_number == 1
    image[65536 + 100] ^= 1
    with pytest.raises(ImageError, match="has no header with its checksum"):
        layer_of(BytesSource(bytes(image)), "vhdx")


# -- DMG, LUKS2, VHD --------------------------------------------------------------------------


def test_a_dmg_with_adc_xz_and_bzip2() -> None:
    chunks = [
        ("adc", b"\5" * 4096),
        ("adc", NOISE[:4096]),
        ("lzma", b"text" * 1024),
        ("bzip2", NOISE[:512] * 9),
    ]
    layer = layer_of(BytesSource(build.dmg(chunks)), "dmg")
    assert read(layer) == b"".join(content for _, content in chunks)


def test_a_dmg_with_lzfse_is_refused_by_name() -> None:
    with pytest.raises(FeatureError) as caught:
        layer_of(BytesSource(build.dmg([("lzfse", bytes(512))])), "dmg")
    assert caught.value.features == ("lzfse compression",)


def test_the_newer_luks2_header_counts_and_a_broken_one_is_told() -> None:
    image = bytearray(build.luks2(bytes(8192), seqids=(3, 4)))
    layer = layer_of(BytesSource(bytes(image)), "luks")
    assert (layer.info.header.seqid, layer.info.damaged, layer.size) == (4, False, 8192)
    assert layer.info.metadata["segments"]["0"]["encryption"] == "aes-xts-plain64"
    image[0x4000 + 5000] ^= 1
    layer = layer_of(BytesSource(bytes(image)), "luks")
    assert (layer.info.header.seqid, layer.info.damaged) == (3, True)
    image[5000] ^= 1
    with pytest.raises(ImageError) as caught:
        layer_of(BytesSource(bytes(image)), "luks")
    assert caught.value.reason == "has no copy with its checksum"


@needs_qemu
def test_the_copy_of_a_vhd_footer_counts_when_the_footer_is_broken(tmp_path: Path) -> None:
    path = written(tmp_path / "image", "vpc", 3 * MIB)
    whole = content(path, "vpc")
    data = path.read_bytes()
    layer = layer_of(BytesSource(data[:-512] + bytes(512)), "vpc")
    assert layer.info.footer_from_copy
    assert read(layer) == whole


@pytest.mark.parametrize(
    ("creator", "chs", "size"),
    [
        (b"vpc ", (100, 16, 63), 100 * 16 * 63 * 512),
        (b"win ", (100, 16, 63), 60 << 20),
        (b"qem2", (100, 16, 63), 60 << 20),
        (b"vpc ", (65535, 16, 255), 60 << 20),
    ],
)
def test_the_size_of_a_vhd_is_decided_as_qemu_does(
    creator: bytes, chs: tuple[int, int, int], size: int
) -> None:
    footer = b"conectix" + struct.pack(">IIQI4sI4sQQHBBI", 2, 0x10000, 2**64 - 1, 0, creator, 0,
                                       b"Wi2k", 60 << 20, 60 << 20, *chs, 2)  # fmt: skip
    footer = build._summed(footer.ljust(512, b"\0"), 64)
    place = BytesSource(bytes(64 << 20) + footer)
    assert layer_of(place, "vpc").size == size


def test_errors_name_the_place_and_what_was_there() -> None:
    image = bytearray(build.vdi({}, 4, link=None))
    image[360:364] = b"\0\4\0\0"
    with pytest.raises(ImageError) as caught:
        layer_of(BytesSource(bytes(image), "disk.vdi"), "vdi")
    error = caught.value
    assert (error.format, error.table, error.offset) == ("vdi", "header", 360)
    assert (error.found, error.expected) == (1024, "512")
    assert str(error) == (
        "disk.vdi: has a wrong sector_size in the header at byte 360, found 1024, expected 512"
    )


def test_a_block_beyond_the_file_is_an_error() -> None:
    image = bytearray(build.vdi({0: ONE, 2: TWO}, 4, link=None))
    image[512 + 4 * 2 : 512 + 4 * 3] = b"\7\0\0\0"
    layer = layer_of(BytesSource(bytes(image), "disk.vdi"), "vdi")
    with pytest.raises(ImageError) as caught:
        layer.extents()
    assert str(caught.value) == (
        "disk.vdi: names a place beyond the end of the file in the block map at byte 520, found 0x7"
    )
    assert len(layer.extents(0, 4096)) == 1


def test_a_place_names_fields_of_structures() -> None:
    place = Place("a", "b", "c", 100)
    assert place.table_at(5).offset == 5
    assert place.table_at(5, "d").table == "d"
