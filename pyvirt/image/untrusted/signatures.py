"""All formats that a file is valid as, by what the programs look for that guess.

Wider than `pyvirt.image.detection`: one sign is enough here, because somebody's parser may be
content with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from pyvirt.image.source import Source

SECTOR = 512
#: Where the volume descriptors of ISO 9660 and UDF begin, and how many are looked at.
VOLUMES, MOST_VOLUMES = 32768, 16

_AT_START = {
    b"QED\0": "qed",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"\xbe\xba\xfe\xca\0\0\0\0": "vmdk",
    b"conectix": "vpc",
    b"vhdxfile": "vhdx",
    b"WithoutFreeSpace": "parallels",
    b"WithouFreSpacExt": "parallels",
    b"Bochs Virtual HD Image": "bochs",
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop": "cloop",
    b"LUKS\xba\xbe": "luks",
    b"SKUL\xba\xbe": "luks",
}
_VDI = b"\x7f\x10\xda\xbe"
_AT_END = {b"conectix": "vpc", b"koly": "dmg"}
_VOLUME = {b"CD001", b"NSR02", b"NSR03", b"BEA01", b"CDROM"}


@frozen
class Sign:
    """A format, and the byte where the file says so."""

    format: str
    offset: int


def signs(source: Source) -> tuple[Sign, ...]:
    """Every format that `source` shows signs of, in the order of the file."""
    return tuple(sorted({one.format: one for one in reversed([*_signs(source)])}.values(),
                        key=lambda one: one.offset))  # fmt: skip


def _signs(source: Source) -> Iterator[Sign]:
    head = source.pread(1 << 16, 0)
    yield from (Sign(name, 0) for magic, name in _AT_START.items() if head.startswith(magic))
    if head[:4] == b"QFI\xfb":
        yield Sign("qcow" if head[4:8] == b"\0\0\0\1" else "qcow2", 0)
    if head[64:68] == _VDI:
        yield Sign("vdi", 64)
    if _is_descriptor(head):
        yield Sign("vmdk", 0)
    if source.size >= SECTOR:
        tail = source.pread(SECTOR, source.size - SECTOR)
        place = source.size - SECTOR
        yield from (Sign(name, place) for magic, name in _AT_END.items() if tail.startswith(magic))
        # A footer may be one byte shorter than its sector: old VHD tools wrote 511 bytes.
        if tail[1:9] == b"conectix":
            yield Sign("vpc", place + 1)
    if head[510:512] == b"\x55\xaa" and not _is_fat(head):
        yield Sign("gpt" if _protective(head) else "mbr", 510)
    yield from _gpt(head)
    yield from _volumes(head)


def _is_fat(head: bytes) -> bool:
    """Whether the boot sector is one of a FAT file system: two tables on a fixed disk."""
    return head[16] == 2 and head[21] == 0xF8


def _protective(head: bytes) -> bool:
    return any(head[446 + 16 * entry + 4] == 0xEE for entry in range(4))


def _gpt(head: bytes) -> Iterator[Sign]:
    for place in (512, 4096):
        if head[place : place + 8] == b"EFI PART":
            yield Sign("gpt", place)


def _volumes(head: bytes) -> Iterator[Sign]:
    for place in range(VOLUMES, VOLUMES + MOST_VOLUMES * 2048, 2048):
        if head[place + 1 : place + 6] in _VOLUME:
            yield Sign("iso9660", place + 1)


def _is_descriptor(head: bytes) -> bool:
    """Whether QEMU, or who searches for the words, takes the file for a VMDK descriptor."""
    text = head[:20480].partition(b"\0")[0].lower()
    if text.lstrip().startswith(b"# disk descriptorfile"):
        return True
    lines = (line.strip() for line in text[:2048].split(b"\n"))
    first = next((line for line in lines if line and not line.startswith(b"#")), b"")
    return first.replace(b" ", b"").startswith(b"version=") or (
        b"createtype=" in text and text.isascii()
    )
