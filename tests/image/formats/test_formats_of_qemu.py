"""Images that QEMU's tools made: content and extents as QEMU tells them."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.formats import (
    content,
    create,
    layer_of,
    ours,
    qemu_img,
    qemu_io,
    qemu_map,
    read,
    sibling,
    told,
    writes,
    written,
)
from support.luks import try_again

from pyvirt.errors import ImageError
from pyvirt.image import Image
from pyvirt.image.detection import detect
from pyvirt.image.formats.parent import check_parent
from pyvirt.image.source import FileSource

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-utils")

MIB = 1 << 20

CASES: list[tuple[str, int, dict[str, Any]]] = [
    *(("raw", size, {}) for size in (0, 512, 5 * MIB + 512)),
    *(("qed", size, {}) for size in (512, 5 * MIB + 512, 1025 * MIB)),
    ("qed", 9 * MIB, {"cluster_size": 4096, "table_size": 2}),
    ("qed", 70 * MIB, {"cluster_size": "1M", "table_size": 16}),
    *(("qcow", size, {}) for size in (512, 3 * MIB + 1536, 1025 * MIB)),
    *(("vdi", size, {}) for size in (512, 5 * MIB + 512, 40 * MIB)),
    ("vdi", 3 * MIB + 512, {"static": "on"}),
    *(("vpc", size, {"force_size": "on"}) for size in (512, 5 * MIB + 512, 70 * MIB)),
    ("vpc", 5 * MIB + 512, {}),
    ("vpc", 5 * MIB + 512, {"subformat": "fixed"}),
    ("vpc", 5 * MIB + 512, {"subformat": "fixed", "force_size": "on"}),
    *(("parallels", size, {}) for size in (512, 5 * MIB + 512, 70 * MIB)),
    ("parallels", 5 * MIB + 512, {"cluster_size": "64k"}),
    *(("vhdx", size, {}) for size in (MIB, 5 * MIB + 512)),
    ("vhdx", 5 * MIB, {"subformat": "fixed"}),
    ("vhdx", 65 * MIB, {"block_size": "2M", "log_size": "3M"}),
    ("vhdx", 33 * MIB, {"block_size": "1M", "block_state_zero": "off"}),
    *(("vmdk", size, {}) for size in (512, 5 * MIB + 512, 70 * MIB)),
    *(
        ("vmdk", 5 * MIB + 512, {"subformat": kind})
        for kind in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat")
    ),
    ("vmdk", 5 * MIB + 512, {"zeroed_grain": "on"}),
    ("vmdk", 5 * MIB + 512, {"compat6": "on", "adapter_type": "lsilogic"}),
]


def name(case: Any) -> str:
    return (
        str(case) if not isinstance(case, dict) else "-".join(f"{k}={v}" for k, v in case.items())
    )


@pytest.mark.parametrize(("format", "size", "options"), CASES, ids=name)
def test_is_read_as_qemu_reads_it(
    format: str, size: int, options: dict[str, Any], tmp_path: Path
) -> None:
    path = create(tmp_path / "image", format, size, **options)
    size = json.loads(qemu_img("info", "--output=json", "-f", format, path))["virtual-size"]
    if size:
        zero = [f"write -z 0 {min(size, 65536)}"] if format in ("qed", "vmdk") else []
        qemu_io(path, format, *writes(size, size), *zero)
    opened: list[FileSource] = []
    with FileSource(path) as source:
        layer = layer_of(source, format, sibling(tmp_path, opened))
        assert layer.size == size
        if size < 256 * MIB:
            assert read(layer) == content(path, format)
        if format == "vhdx":  # QEMU's driver has no map.
            assert told(qemu_map(path, format)) == [(0, size, True, None)]
        else:
            assert ours(layer) == told(qemu_map(path, format))
            with Image(path, format, trust=True) as image:
                assert json.loads(image.extents(chain=True).json()) == qemu_map(path, format)
        assert format in [match.format for match in detect(source)]
        assert detect(source)[0].format == format or options.get("subformat") == "fixed"
    for other in opened:
        other.close()


@pytest.mark.parametrize("size", [65536, 3 * MIB + 512])
def test_a_stream_optimized_vmdk_is_read_as_qemu_reads_it(size: int, tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "image"
    parts = [random.Random(1).randbytes(200_000), bytes(MIB), b"text" * 50_000, b"\1" * size]
    raw.write_bytes(b"".join(parts)[:size])
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path)
    with FileSource(path) as source:
        layer = layer_of(source, "vmdk")
        assert any(extent.compressed for extent in layer.extents())
        assert read(layer) == content(path, "vmdk") == raw.read_bytes()
        assert ours(layer) == told(qemu_map(path, "vmdk"))


@pytest.mark.parametrize("format", ["qcow", "qed", "vmdk"])
def test_an_overlay_has_what_its_backing_image_lacks(format: str, tmp_path: Path) -> None:
    base = written(tmp_path / "base", format, 5 * MIB, seed=1)
    top = tmp_path / "top"
    qemu_img("create", "-q", "-f", format, "-b", base, "-F", format, top)
    qemu_io(top, format, *writes(5 * MIB, 2, 5))
    with FileSource(base) as below, FileSource(top) as source:
        layer, parent = layer_of(source, format), layer_of(below, format)
        assert [(one.kind, Path(one.name).name) for one in layer.references] == [
            ("backing", "base")
        ]
        assert read(layer, read(parent)) == content(top, format)
        if format == "vmdk":
            check_parent(layer, parent)


def test_an_encrypted_qcow_says_so(tmp_path: Path) -> None:
    path = tmp_path / "image"
    secret = "secret,id=s,data=geheim"
    qemu_img("create", "-q", "--object", secret, "-f", "qcow",
             "-o", "encrypt.format=aes,encrypt.key-secret=s", path, "1M")  # fmt: skip
    with FileSource(path) as source:
        info = layer_of(source, "qcow").info
        assert (info.encrypted, info.crypt_method) == (True, 1)


def test_a_luks_image_of_qemu(tmp_path: Path) -> None:
    path = tmp_path / "image"
    words = ["--object", "secret,id=s,data=geheim", "-o", "key-secret=s,iter-time=10"]
    try_again(["qemu-img", "create", "-q", "-f", "luks", *words, path, "1M"])
    with FileSource(path) as source:
        layer = layer_of(source, "luks")
        header = layer.info.header
        assert (header.cipher_name, header.cipher_mode) == ("aes", "xts-plain64")
        assert [slot.enabled for slot in layer.info.key_slots] == [True] + [False] * 7
        assert layer.size == MIB
        (extent,) = layer.extents()
        assert extent.host == header.payload_offset * 512
        assert detect(source)[0].format == "luks"


def test_a_big_image_is_split_at_two_gigabytes(tmp_path: Path) -> None:
    path = create(tmp_path / "image", "vmdk", 4100 * MIB, subformat="twoGbMaxExtentSparse")
    qemu_io(path, "vmdk", "write -P 1 0 512", f"write -P 2 {4097 * MIB} 64k")
    opened: list[FileSource] = []
    with FileSource(path) as source:
        layer = layer_of(source, "vmdk", sibling(tmp_path, opened))
        found = [one for one in layer.extents() if one.allocated]
        assert [one.file for one in found] == [0, 2]
        assert layer.sources[2].pread(4, found[1].host) == b"\2" * 4
        assert [one.kind for one in layer.references] == ["extent"] * 3
    for other in opened:
        other.close()


@pytest.mark.skipif(not shutil.which("bsdtar"), reason="needs libarchive-tools")
def test_an_iso_image(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    command = ["bsdtar", "-c", "--format=iso9660", "--options", "volume-id=TITLE"]
    path = tmp_path / "image.iso"
    subprocess.run([*command, "-f", path, "-C", tmp_path, "file"], check=True, timeout=60)
    with FileSource(path) as source:
        assert [match.format for match in detect(source)] == ["iso9660", "raw"]
        layer = layer_of(source, "iso9660")
        assert layer.info.primary.volume_identifier == "TITLE"
        assert layer.info.joliet
        assert read(layer) == path.read_bytes()


def test_a_broken_grain_directory_is_read_by_its_redundant_copy(tmp_path: Path) -> None:
    path = create(tmp_path / "image", "vmdk", 70 * MIB)
    qemu_io(path, "vmdk", *writes(70 * MIB, 3))
    with Image(path) as image:
        content, header = image.read(0, image.size), image.info.header
    entries = -(-header.capacity // (header.grain_size * header.num_gtes_per_gt))
    whole = path.read_bytes()

    def broken(*sectors: int) -> None:
        data = bytearray(whole)
        for sector in sectors:
            data[sector * 512 : sector * 512 + 4 * entries] = b"\xff" * 4 * entries
        path.write_bytes(data)

    broken(header.gd_offset)
    with Image(path) as image:
        assert image.read(0, image.size) == content
    broken(header.gd_offset, header.rgd_offset)
    with Image(path) as image, pytest.raises(ImageError, match="beyond the end") as caught:
        image.read(0, 1)
    assert caught.value.table == "grain directory"


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_a_descriptor_is_told_without_its_extents(tmp_path: Path, subformat: str) -> None:
    path = create(tmp_path / "image.vmdk", "vmdk", 5 * MIB, subformat=subformat)
    with Image(path) as image:  # trust=False
        told = image.info
    assert (told.format, told.size, told.file_size) == ("vmdk", 5 * MIB, path.stat().st_size)
    assert [one.kind for one in told.references] == ["extent"]
    assert told.descriptor.create_type == subformat
