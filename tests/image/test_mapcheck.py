"""The check of images that are one map, against ``qemu-img check`` where that looks, too."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from support.formats import create, qemu_io

from pyvirt.errors import UnsupportedError
from pyvirt.image import Image

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-utils")

MIB = 1 << 20


def made(tmp_path: Path, format: str) -> Path:
    path = create(tmp_path / f"image.{format}", format, 20 * MIB)
    qemu_io(path, format, "write -P 1 0 64k", "write -P 2 5M 2M", "write -P 3 12M 64k")
    return path


def theirs(path: Path, format: str) -> int:
    words = ["qemu-img", "check", "-f", format, str(path)]
    return subprocess.run(words, capture_output=True, timeout=60).returncode


def put(path: Path, offset: int, code: str, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(code, value))


@pytest.mark.parametrize("format", ["vdi", "vmdk", "vhdx", "parallels"])
def test_good_images_are_good(tmp_path: Path, format: str) -> None:
    path = made(tmp_path, format)
    with Image(path, format) as image:
        result = image.check()
    assert (result.ok, result.exit_code, theirs(path, format)) == (True, 0, 0)
    assert 0 < result.allocated_clusters < result.total_clusters
    assert 0 < result.image_end_offset <= path.stat().st_size


def test_a_vdi_whose_blocks_share_a_place(tmp_path: Path) -> None:
    path = made(tmp_path, "vdi")
    with Image(path) as image:
        header = image.info
    put(path, header.offset_bmap + 4 * 5, "<I", 0)
    with Image(path) as image:
        result = image.check()
    assert result.exit_code == theirs(path, "vdi") == 2
    place = f"data at {header.offset_data}: the place of two blocks, found {5 * MIB:#x}"
    assert list(map(str, result.findings)) == [place]
    assert result.overlaps == 1


def test_a_vdi_that_counts_wrongly(tmp_path: Path) -> None:
    path = made(tmp_path, "vdi")
    put(path, 388, "<I", 2)
    with Image(path) as image:
        result = image.check()
    assert result.exit_code == theirs(path, "vdi") == 2
    assert [one.fault for one in result.findings] == ["wrong number of blocks"]


def test_parallels_in_use_beyond_the_end_and_leaking(tmp_path: Path) -> None:
    path = made(tmp_path, "parallels")
    whole = path.read_bytes()
    for offset, value, fault in (
        (44, 0x746F6E59, "the image was not closed"),
        (64 + 4 * 5, 0x7FFFFF00, "names a place beyond the end of the file"),
    ):
        put(path, offset, "<I", value)
        with Image(path) as image:
            result = image.check()
        assert result.exit_code == theirs(path, "parallels") == 2
        assert [one.fault for one in result.findings] == [fault]
        path.write_bytes(whole)
    path.write_bytes(whole + bytes(3 * MIB))
    with Image(path) as image:
        result = image.check()
    assert (result.leaks, result.exit_code, theirs(path, "parallels")) == (3, 3, 3)


@pytest.mark.parametrize("format", ["raw", "vpc", "qcow"])
def test_other_formats_have_no_check_here(tmp_path: Path, format: str) -> None:
    path = create(tmp_path / "image", format, MIB)
    with Image(path, format) as image, pytest.raises(UnsupportedError, match="a check"):
        image.check()
