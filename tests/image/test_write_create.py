"""Images that are made, with each option that there is, and what became of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from writes import MIB, image, info, io, names, run, sound

from pyvirt import Disk
from pyvirt.errors import ImageError, SpecError, ToolError
from pyvirt.image import Encrypt, KeySlot, Qcow2Options, amend, convert, create
from pyvirt.qemu_img.options import FORMATS

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="no qemu-img here")

QUICK = Encrypt("geheim", iter_time=0.01)
AES = Encrypt("geheim", format="aes")


def data(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = info(path)["format-specific"]["data"]
    return found


def bytes_at(offset: int, size: int) -> Callable[[Path], bytes]:
    def read(path: Path) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


def allocated(path: Path) -> bool:
    return path.stat().st_blocks * 512 >= 8 * MIB


def described(path: Path) -> str:
    """The text at the beginning of a VMDK or in its descriptor."""
    return path.read_bytes()[:65536].decode("latin-1")


# One row for each option: what is read back from the image, and what it must be.
OPTIONS: list[tuple[str, Mapping[str, Any], Callable[[Path], Any], Any]] = [
    ("raw", {"preallocation": "falloc"}, allocated, True),
    ("raw", {"preallocation": "full"}, allocated, True),
    ("raw", {"preallocation": "off"}, allocated, False),
    ("raw", {"nocow": True}, allocated, False),
    ("raw", {"extent_size_hint": "1M"}, allocated, False),
    ("qcow2", {"preallocation": "metadata"}, lambda p: "unallocated" in run(
        "qemu-img", "map", "-f", "qcow2", p), False),
    ("qcow2", {"preallocation": "falloc"}, allocated, True),
    ("qcow2", {"preallocation": "full"}, allocated, True),
    ("qcow2", {"cluster_size": "1M"}, lambda p: info(p)["cluster-size"], MIB),
    ("qcow2", {"cluster_size": 512}, lambda p: info(p)["cluster-size"], 512),
    ("qcow2", {"compat": "v2"}, lambda p: data(p)["compat"], "0.10"),
    ("qcow2", {"compat": "1.1"}, lambda p: data(p)["compat"], "1.1"),
    ("qcow2", {"compression_type": "zstd"}, lambda p: data(p)["compression-type"], "zstd"),
    ("qcow2", {"extended_l2": True}, lambda p: data(p)["extended-l2"], True),
    ("qcow2", {"lazy_refcounts": True}, lambda p: data(p)["lazy-refcounts"], True),
    ("qcow2", {"refcount_bits": 1}, lambda p: data(p)["refcount-bits"], 1),
    ("qcow2", {"refcount_bits": 64}, lambda p: data(p)["refcount-bits"], 64),
    ("qcow2", {"data_file": "data,1.raw"}, lambda p: Path(data(p)["data-file"]).name,
     "data,1.raw"),
    ("qcow2", {"data_file": "d.raw", "data_file_raw": True}, lambda p: data(p)["data-file-raw"],
     True),
    # With LUKS, for which QEMU takes seconds, in a test of its own below.
    ("qcow2", {"encrypt": AES}, lambda p: data(p)["encrypt"]["format"], "aes"),
    ("qcow2", {"nocow": True, "extent_size_hint": 0}, lambda p: info(p)["format"], "qcow2"),
    ("qcow", {}, bytes_at(0, 8), b"QFI\xfb\0\0\0\1"),
    ("qcow", {"encrypt": AES}, bytes_at(36, 4), b"\0\0\0\1"),
    ("qed", {"cluster_size": "128K"}, bytes_at(4, 4), (128 * 1024).to_bytes(4, "little")),
    ("qed", {"table_size": 8}, bytes_at(8, 4), (8).to_bytes(4, "little")),
    ("vmdk", {"adapter_type": "lsilogic"}, lambda p: 'adapterType = "lsilogic"' in described(p),
     True),
    ("vmdk", {"subformat": "monolithicFlat"}, lambda p: names(p.parent), ["x", "x-flat"]),
    ("vmdk", {"subformat": "twoGbMaxExtentSparse"}, lambda p: names(p.parent), ["x", "x-s001"]),
    ("vmdk", {"subformat": "twoGbMaxExtentFlat"}, lambda p: names(p.parent), ["x", "x-f001"]),
    ("vmdk", {"subformat": "streamOptimized"}, lambda p: "streamOptimized" in described(p), True),
    ("vmdk", {"hwversion": "8"}, lambda p: 'virtualHWVersion = "8"' in described(p), True),
    ("vmdk", {"compat6": True}, lambda p: 'virtualHWVersion = "6"' in described(p), True),
    ("vmdk", {"toolsversion": "99"}, lambda p: 'toolsVersion = "99"' in described(p), True),
    ("vmdk", {"zeroed_grain": True}, lambda p: bytes_at(8, 4)(p)[0] & 4, 4),
    ("vdi", {"static": True}, bytes_at(0x4C, 4), (2).to_bytes(4, "little")),
    ("vdi", {}, bytes_at(0x4C, 4), (1).to_bytes(4, "little")),
    ("vpc", {"subformat": "fixed", "force_size": True}, lambda p: p.stat().st_size,
     8 * MIB + 512),
    ("vpc", {"subformat": "dynamic"}, bytes_at(0, 8), b"conectix"),
    ("vhdx", {"subformat": "fixed"}, lambda p: p.stat().st_size >= 8 * MIB, True),
    ("vhdx", {"block_size": "2M"}, lambda p: info(p, "vhdx")["cluster-size"], 2 * MIB),
    ("vhdx", {"log_size": "3M"}, lambda p: p.stat().st_size > 0, True),
    ("vhdx", {"block_state_zero": False}, lambda p: info(p, "vhdx")["format"], "vhdx"),
    ("parallels", {"cluster_size": "2M"}, bytes_at(28, 4), (4096).to_bytes(4, "little")),
    ("luks", {"preallocation": "falloc", "encrypt": attrs.evolve(
        QUICK, cipher_alg="aes-128", hash_alg="sha512", cipher_mode="cbc", ivgen_alg="essiv",
        ivgen_hash_alg="sha256")},
     lambda p: bytes_at(40, 16)(p).rstrip(b"\0"), b"cbc-essiv:sha256"),
]  # fmt: skip


def test_every_option_has_its_row() -> None:
    shown = {(format, name) for format, given, _, _ in OPTIONS for name in given}
    everywhere = {"preallocation", "nocow", "extent_size_hint"}
    for format, kind in FORMATS.items():
        own = {each.alias for each in attrs.fields(kind)} - everywhere
        assert own <= {name for known, name in shown if known == format}


@pytest.mark.parametrize(
    ("format", "given", "read", "expected"),
    [pytest.param(*row, id=f"{row[0]}-{'-'.join(row[1]) or 'plain'}") for row in OPTIONS],
)
def test_an_image_has_what_was_chosen(
    tmp_path: Path, format: str, given: Mapping[str, Any], read: Callable[[Path], Any],
    expected: Any,
) -> None:  # fmt: skip
    # VMDK makes the names of its extents from this one's.
    path = tmp_path / ("x.vmdk" if isinstance(expected, list) else "x")
    made = create(path, "8M", format, **given)
    found = read(path)
    if isinstance(expected, list):
        found = sorted(name.removesuffix(".vmdk") for name in found)
    assert found == expected
    assert (made.path, made.format) == (path, format)
    assert abs(made.size - 8 * MIB) < 64 * 1024  # VHD rounds to its geometry
    beside = {str(given["data_file"])} if "data_file" in given else set()
    if not isinstance(expected, list):
        assert set(names(tmp_path)) == {"x", *beside}


@pytest.mark.parametrize("format", [each for each in FORMATS if each != "luks"])
def test_every_format_takes_the_preallocation_of_its_file(tmp_path: Path, format: str) -> None:
    for mode in ("off", "falloc", "full"):
        made = create(tmp_path / mode, "1M", format, preallocation=mode, nocow=False)
        assert made.format == format


def test_an_overlay_has_the_size_of_what_is_below(tmp_path: Path) -> None:
    image(tmp_path / "base.qcow2", "48M")
    top = tmp_path / "top.qcow2"
    assert create(top, backing="base.qcow2", backing_format="qcow2").size == 48 * MIB
    io(top, "read -P 7 0 4M")
    assert info(top)["backing-filename"] == "base.qcow2"
    assert info(top)["backing-filename-format"] == "qcow2"


@pytest.mark.parametrize("format", ["qcow2", "qcow", "qed", "vmdk"])
def test_every_format_with_a_backing_image_takes_one(tmp_path: Path, format: str) -> None:
    base = create(tmp_path / "base", "4M", "vmdk" if format == "vmdk" else "raw")
    made = create(tmp_path / "top", "4M", format, backing="base", backing_format=base.format)
    assert info(made.path, format)["backing-filename"].endswith("base")


def test_split_vmdk_over_another_finds_it(tmp_path: Path) -> None:
    create(tmp_path / "base.vmdk", "4M", "vmdk")
    io(tmp_path / "base.vmdk", "write -P 5 0 1M", format="vmdk")
    top = tmp_path / "top.vmdk"
    create(top, "4M", "vmdk", subformat="twoGbMaxExtentSparse", backing="base.vmdk",
           backing_format="vmdk")  # fmt: skip
    io(top, "read -P 5 0 1M", format="vmdk")
    assert names(tmp_path) == ["base.vmdk", "top-s001.vmdk", "top.vmdk"]


def test_the_size_of_a_missing_backing_image_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        create(tmp_path / "x", backing="gone", backing_format="raw")
    assert "gone" in caught.value.words
    assert ".part" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "size"),
        ({"size": -1}, "size"),
        ({"size": "many"}, "size"),
        ({"size": 1, "backing": "a"}, "backing_format"),
        ({"size": 1, "backing_format": "raw"}, "backing_format"),
        ({"size": 1, "format": "raw", "backing": "a", "backing_format": "raw"}, "backing"),
        ({"size": 1, "backing": "a", "backing_format": "raw", "preallocation": "full"},
         "preallocation"),
        ({"size": 1, "backing": "a", "backing_format": "raw", "data_file": "d",
          "data_file_raw": True}, "data_file_raw"),
        ({"size": 1, "format": Qcow2Options(), "cluster_size": 512}, "cluster_size"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused_before_anything_runs(
    tmp_path: Path, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(SpecError) as caught:
        create(tmp_path / "x", **given)
    assert caught.value.field == field
    assert names(tmp_path) == []


def test_a_file_that_is_there_stays_unless_it_shall_go(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("precious")
    path.chmod(0o640)
    with pytest.raises(FileExistsError) as caught:
        create(path, "1M", "raw")
    assert caught.value.filename == str(path)
    assert path.read_text() == "precious"
    create(path, "1M", "raw", overwrite=True)
    assert path.stat().st_size == MIB
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    create(tmp_path / "link", "1M", "raw", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old").stat().st_size == MIB


def test_a_data_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("precious")
    with pytest.raises(FileExistsError):
        create(tmp_path / "x", "1M", data_file="d", overwrite=True)
    assert (tmp_path / "d").read_text() == "precious"
    assert names(tmp_path) == ["d"]


def test_names_that_qemu_would_take_for_something_else(tmp_path: Path) -> None:
    for name in ("nbd:x", "a,b=c", "json:{}", "-x", "%20 é\n"):
        create(tmp_path / name, "1M")
        convert(tmp_path / name, tmp_path / f"{name}.raw", "raw")
        sound(tmp_path / name)


def test_nothing_is_made_where_there_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        create(tmp_path / "none" / "x", "1M")
    assert caught.value.filename == str(tmp_path / "none")


def test_a_new_disk_in_one_line_opens_with_its_passphrases_only(tmp_path: Path) -> None:
    path = tmp_path / "d.qcow2"
    disk = Disk.create(path, "16M", cluster_size="128K", encrypt=QUICK)
    assert (disk.file, disk.format, disk.key) == (str(path), "qcow2", QUICK.key)
    assert info(path)["cluster-size"] == 128 * 1024
    assert data(path)["encrypt"]["format"] == "luks"
    amend(path, key=disk.key, keys=KeySlot("active", new="neu", iter_time=0.01))
    convert(path, tmp_path / "out.raw", "raw", key="neu")
    with pytest.raises(ToolError, match="Invalid password"):
        convert(path, tmp_path / "no.raw", "raw", key="falsch")
    assert names(tmp_path) == ["d.qcow2", "out.raw"]


def test_what_the_tool_made_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A qemu-img that makes an image of another size is found out."""
    real = shutil.which("qemu-img")
    fake = tmp_path / "bin" / "qemu-img"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\n[ "$1" = create ] && set -- "$@" && shift $(($#-2)) && '
                    f'exec {real} create -q -f qcow2 "$1" 1M\nexec {real} "$@"\n')  # fmt: skip
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    (tmp_path / "out").mkdir()
    with pytest.raises(ImageError) as caught:
        create(tmp_path / "out" / "x", "8M")
    assert (caught.value.found, caught.value.expected) == (MIB, 8 * MIB)
    assert names(tmp_path / "out") == []


def test_no_qemu_img_says_which_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyvirt.errors import UnsupportedError

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError) as caught:
        create(tmp_path / "x", "8M")
    assert caught.value.hint == "install the package qemu-utils"
    assert names(tmp_path) == []
