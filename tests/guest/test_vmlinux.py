"""The kernel is taken out of its image whole, whatever it is packed with."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
from pathlib import Path

import pytest
from support.elfs import bzimage, executable, pvh_note, relocatable
from support.kernels import kernel

from pyvirt.errors import ProtocolError, UnsupportedError
from pyvirt.guest import elf, strip
from pyvirt.guest import kernel as kernels
from pyvirt.guest.vmlinux import vmlinux

INNER = executable(b"code" * 1000, b"data" + bytes(5000), note=pvh_note())


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_the_kernel_is_unpacked(pack) -> None:
    size = len(INNER).to_bytes(4, "little")  # the kernel's build appends it
    assert vmlinux(bzimage(pack(INNER) + size)) == vmlinux(INNER)


def test_it_keeps_its_contents_and_its_note() -> None:
    read = elf.read(vmlinux(INNER))
    code, data, _ = read.segments
    assert read.data[code.offset :][: code.size] == b"code" * 1000
    assert read.data[data.offset :][: data.size] == b"data", "zeros are left to the loader"
    assert (b"Xen", 18, struct.pack("<Q", 0x1000000)) in set(read.notes())


def test_the_hosts_kernel_is_unpacked() -> None:
    inner = vmlinux(kernel().image.read_bytes())
    assert b"Linux version " + kernel().release.encode() in inner
    assert elf.read(inner).segments


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (b"", "k is too short for a Linux kernel at byte 0"),
        (bytes(4096), "k is not a bzImage at byte 514"),
        (bzimage(b"x" * 100)[:-1], "k ends before its payload does at byte 1139"),
        (bzimage(b"not packed"), "k holds no ELF kernel at byte 0"),
    ],
)
def test_what_is_no_kernel_is_refused(image: bytes, sentence: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        vmlinux(image, "k")
    assert str(caught.value) == sentence


def test_a_kernel_that_pvh_cannot_enter_is_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        vmlinux(bzimage(executable(b"code")), "k")
    assert str(caught.value) == (
        "the PVH entry is not available in k; build the kernel with CONFIG_PVH"
    )


def test_the_release_is_read_from_either_form(tmp_path: Path) -> None:
    assert kernels.release_of(bzimage(b"", "6.1.0-9-amd64"), "k") == "6.1.0-9-amd64"
    assert kernels.release_of(b"...Linux version 6.8.0 (gcc)", "k") == "6.8.0"
    with pytest.raises(ProtocolError, match=r"^k is not a Linux kernel"):
        kernels.release_of(b"nothing", "k")


def test_kernels_are_found_newest_first_with_their_modules(tmp_path: Path) -> None:
    for release in ("6.1.0-9", "6.1.0-10", "6.1.0-11"):
        (tmp_path / "boot").mkdir(exist_ok=True)
        (tmp_path / f"boot/vmlinuz-{release}").write_bytes(b"")
        (tmp_path / f"lib/modules/{release}/kernel/x").mkdir(parents=True)
    (tmp_path / "boot/vmlinuz-6.1.0-11").unlink()
    assert [found.release for found in kernels.installed(tmp_path)] == ["6.1.0-10", "6.1.0-9"]


def test_a_kernel_without_drivers_tells_which(tmp_path: Path) -> None:
    folder = tmp_path / "lib/modules/1"
    (folder / "kernel").mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/virtio_blk.ko\n")
    for name in ("virtio_console", "virtio-net", "ahci", "9p"):
        (folder / f"kernel/{name}.ko.xz").touch()
    assert kernels.Kernel("1", tmp_path / "image", folder).lacks() == ["e1000", "nvme"]


# Stripping ---------------------------------------------------------------------------------------

MODULE = relocatable(text=b"code", BTF=b"types" * 100, orc_unwind=b"orc" * 9, modinfo=b"name=x\0")


def test_a_module_loses_what_is_not_used_and_keeps_the_rest() -> None:
    small = strip.module(MODULE)
    before, after = elf.read(MODULE), elf.read(small)
    assert list(after.sections) == list(before.sections), "symbols refer to their numbers"
    assert after.section(".BTF") == after.section(".orc_unwind") == b""
    assert after.section(".text") == b"code"
    assert after.section(".modinfo") == b"name=x\0"
    assert len(small) < len(MODULE) - 400
    assert strip.module(small) == small


@pytest.mark.parametrize("cut", range(0, len(MODULE), 37))
def test_a_cut_module_is_refused(cut: int) -> None:
    with pytest.raises(ProtocolError, match=re.escape("x is not a whole kernel module (")):
        strip.module(MODULE[:cut], "x")
