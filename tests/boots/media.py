"""Real media to boot, from Debian's packages, and one made here byte by byte."""

from __future__ import annotations

from pathlib import Path

import pytest

GRUB = Path("/usr/lib/grub-rescue")
GRUB_ISO, GRUB_USB, GRUB_FLOPPY = (
    GRUB / f"grub-rescue-{name}" for name in ("cdrom.iso", "usb.img", "floppy.img")
)
IPXE_ISO, IPXE_EFI = Path("/usr/lib/ipxe/ipxe.iso"), Path("/boot/ipxe.efi")
MEMTEST_ISO = Path("/usr/lib/memtest86+/memtest86+x64.iso")
MEMTEST_KERNEL = Path("/boot/memtest86+x64.bin")
NETBOOT = Path("/usr/lib/debian-installer/images/12/amd64/text")

PACKAGES = {
    GRUB_ISO: "grub-rescue-pc",
    GRUB_USB: "grub-rescue-pc",
    GRUB_FLOPPY: "grub-rescue-pc",
    IPXE_ISO: "ipxe",
    IPXE_EFI: "ipxe",
    MEMTEST_ISO: "memtest86+",
    MEMTEST_KERNEL: "memtest86+",
    NETBOOT: "debian-installer-12-netboot-amd64",
}


def present(path: Path) -> Path:
    """`path`, or the test is skipped for want of its package."""
    if not path.exists():
        pytest.skip(f"the package {PACKAGES[path]} is not installed")
    return path


# xor ax, ax; mov ds, ax; mov si, 0x7c15; mov dx, 0x3f8;
# next: lodsb; test al, al; jz stop; out dx, al; jmp next; stop: hlt; jmp stop
_CODE = bytes.fromhex("31c0 8ed8 be157c baf803 ac 84c0 7403 ee ebf8 f4 ebfd")


def boot_sector(text: str) -> bytes:
    """A disk whose boot sector writes `text` to the first serial port, and stops."""
    sector = (_CODE + text.encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa"
    assert len(sector) == 512
    return sector.ljust(1474560, b"\0")  # as large as a floppy, which is small enough
