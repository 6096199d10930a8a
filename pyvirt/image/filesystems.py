"""File systems, swap, and parts of volumes, told by their signatures.

`kind` is the word that blkid has for it. A volume may have several signatures: what an earlier
file system left behind looks the same, so all of them are told.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise

from attrs import frozen

from pyvirt.image.region import Region

#: Bytes that every signature but those at the end lies in.
HEAD = 68 << 10


@frozen
class Volume:
    """What a partition or a whole disk holds; `size` in bytes, 0 where it does not say."""

    kind: str
    label: str = ""
    #: As blkid writes it: of FAT "1234-ABCD", of NTFS 16 digits, of ISO 9660 a date.
    uuid: str = ""
    size: int = 0
    #: "FAT16", "1.2", ...: what more there is to say of the kind.
    version: str = ""


def volumes(disk: Region) -> tuple[Volume, ...]:
    """Everything that `disk` has the signature of."""
    head = disk.block(0, HEAD)
    return tuple(one for find in _FINDERS for one in find(disk, head))


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace").rstrip()


def _padded(data: bytes) -> str:
    return data.decode("latin-1").rstrip(" \0")


def _utf16(data: bytes) -> str:
    return data.decode("utf-16-le", "replace").partition("\0")[0]


def _uuid(data: bytes) -> str:
    return str(uuid.UUID(bytes=bytes(data[:16])))


def _power(number: int, low: int, high: int) -> bool:
    return low <= number <= high and not number & (number - 1)


# -- Linux ---------------------------------------------------------------------------------------

_JOURNAL, _JOURNAL_DEVICE, _64BIT = 0x4, 0x8, 0x80
#: Features that ext3 has: anything else makes it ext4.
_EXT3_INCOMPATIBLE, _EXT3_READ_ONLY = 0x2 | 0x4 | 0x10, 0x1 | 0x2 | 0x4


def _ext(disk: Region, head: bytes) -> Iterator[Volume]:
    data = head[1024:2048]
    if data[56:58] != b"\x53\xef":
        return
    blocks, shift = struct.unpack_from("<I", data, 4)[0], struct.unpack_from("<I", data, 24)[0]
    compatible, incompatible, read_only = struct.unpack_from("<III", data, 92)
    if incompatible & _64BIT:
        blocks |= struct.unpack_from("<I", data, 0x150)[0] << 32
    kind = "ext3" if compatible & _JOURNAL else "ext2"
    if incompatible & ~_EXT3_INCOMPATIBLE or read_only & ~_EXT3_READ_ONLY:
        kind = "ext4"
    if incompatible & _JOURNAL_DEVICE:
        kind = "jbd"
    size = blocks << 10 + shift if shift <= 6 else 0
    yield Volume(kind, _text(data[120:136]), _uuid(data[104:120]), size)


def _xfs(disk: Region, head: bytes) -> Iterator[Volume]:
    if head[:4] == b"XFSB":
        block, blocks = struct.unpack_from(">IQ", head, 4)
        size = block * blocks if _power(block, 512, 65536) else 0
        yield Volume("xfs", _text(head[108:120]), _uuid(head[32:48]), size)


def _btrfs(disk: Region, head: bytes) -> Iterator[Volume]:
    data = head[65536 : 65536 + 4096]
    if data[64:72] == b"_BHRfS_M":
        size = int.from_bytes(data[0x70:0x78], "little")
        yield Volume("btrfs", _text(data[0x12B : 0x12B + 256]), _uuid(data[32:48]), size)


def _swap(disk: Region, head: bytes) -> Iterator[Volume]:
    for page in (4096, 8192, 16384, 32768, 65536):
        magic = head[page - 10 : page]
        if magic in (b"SWAPSPACE2", b"SWAP-SPACE"):
            last = int.from_bytes(head[1028:1032], "little")
            yield Volume("swap", _text(head[1052:1068]), _uuid(head[1036:1052]), last * page,
                         "1" if magic == b"SWAPSPACE2" else "0")  # fmt: skip
            return


def _squashfs(disk: Region, head: bytes) -> Iterator[Volume]:
    if head[:4] == b"hsqs":
        major, minor = struct.unpack_from("<HH", head, 28)
        size = int.from_bytes(head[40:48], "little")
        yield Volume("squashfs", size=size, version=f"{major}.{minor}")


def _luks(disk: Region, head: bytes) -> Iterator[Volume]:
    if head[:6] == b"LUKS\xba\xbe":
        version = int.from_bytes(head[6:8], "big")
        label = _text(head[24:72]) if version == 2 else ""
        yield Volume("crypto_LUKS", label, _text(head[168:208]), version=str(version))


def _lvm(disk: Region, head: bytes) -> Iterator[Volume]:
    """The label is in one of the first four sectors; it tells where the header is."""
    for place in range(0, 2048, 512):
        label = head[place : place + 512]
        if label[:8] == b"LABELONE" and label[24:32] == b"LVM2 001":
            offset = int.from_bytes(label[20:24], "little")
            header = disk.block(place + offset, 40)
            text, size = _text(header[:32]), int.from_bytes(header[32:40], "little")
            yield Volume("LVM2_member", uuid=_lvm_id(text), size=size, version="LVM2 001")


def _lvm_id(text: str) -> str:
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(text[a:b] for a, b in pairwise(cuts))


_RAID = (0xA92B4EFC).to_bytes(4, "little")


def _raid(disk: Region, head: bytes) -> Iterator[Volume]:
    """Linux software RAID: four places for the superblock, by version."""
    sectors = disk.size // 512
    late = ((sectors - 16) & ~7) * 512
    for place, version in ((late, "1.0"), (0, "1.1"), (4096, "1.2")):
        data = disk.block(place, 256) if place >= 0 else b""
        if data[:4] == _RAID and data[4:8] == b"\1\0\0\0":
            size = int.from_bytes(data[80:88], "little") * 512
            yield Volume("linux_raid_member", _text(data[32:64]), _uuid(data[16:32]), size, version)
    old = (disk.size & ~0xFFFF) - 0x10000
    data = disk.block(old, 4096) if old >= 0 else b""
    if data[:4] == _RAID and data[4:8] == bytes(4):
        words = data[20:24] + data[52:64]
        size = int.from_bytes(data[32:36], "little") * 1024
        number = b"".join(words[at : at + 4][::-1] for at in range(0, 16, 4))
        yield Volume("linux_raid_member", uuid=_uuid(number), size=size, version="0.90")


# -- FAT, exFAT, NTFS ----------------------------------------------------------------------------


def _fat(disk: Region, head: bytes) -> Iterator[Volume]:
    sector, cluster, reserved, tables, roots, small = struct.unpack_from("<HBHBHH", head, 11)
    media, short, _, _, _, large, long = struct.unpack_from("<BHHHIII", head, 21)
    sectors, table = small or large, short or long
    plausible = (
        head[510:512] == b"\x55\xaa"
        and _power(sector, 512, 4096)
        and _power(cluster, 1, 128)
        and (reserved and tables and sectors and table)
        and (media == 0xF0 or media >= 0xF8)
    )
    if not plausible or head[3:11] in (b"NTFS    ", b"EXFAT   "):
        return
    first = reserved + tables * table + -(-roots * 32 // sector)
    clusters = (sectors - first) // cluster
    version = "FAT12" if clusters < 4085 else "FAT16" if clusters < 65525 else "FAT32"
    if not short:  # Only FAT32 has no room for the size of its tables there.
        version = "FAT32"
    place = 67 if version == "FAT32" else 39
    serial, label = int.from_bytes(head[place : place + 4], "little"), head[place + 4 : place + 15]
    name = "" if label == b"NO NAME    " else _padded(label)
    yield Volume("vfat", name, f"{serial >> 16:04X}-{serial & 0xFFFF:04X}", sectors * sector,
                 version)  # fmt: skip


def _exfat(disk: Region, head: bytes) -> Iterator[Volume]:
    if head[3:11] != b"EXFAT   ":
        return
    sectors = int.from_bytes(head[72:80], "little")
    heap, _, root, serial = struct.unpack_from("<IIII", head, 88)
    sector, cluster = head[108], head[109]
    if not 9 <= sector <= 12 or cluster > 25 - sector:
        return
    place = (heap << sector) + (max(0, root - 2) << sector + cluster)
    label = ""
    entries = disk.block(place, min(1 << sector + cluster, 4096))
    for at in range(0, len(entries), 32):
        if entries[at] == 0x83:
            label = _utf16(entries[at + 2 : at + 2 + 2 * min(entries[at + 1], 11)])
    yield Volume("exfat", label, f"{serial >> 16:04X}-{serial & 0xFFFF:04X}", sectors << sector)


def _ntfs(disk: Region, head: bytes) -> Iterator[Volume]:
    if head[3:11] != b"NTFS    ":
        return
    sector, cluster = struct.unpack_from("<HB", head, 11)
    sectors, table = struct.unpack_from("<QQ", head, 40)
    serial = int.from_bytes(head[72:80], "little")
    if not _power(sector, 256, 4096):
        return
    # From 0xF4 on the byte is a negative power of two.
    unit = sector * cluster if cluster <= 0x80 else sector << min(256 - cluster, 12)
    label = _ntfs_label(disk, table * unit, head[64], unit)
    yield Volume("ntfs", label, f"{serial:016X}", sectors * sector)


def _ntfs_label(disk: Region, table: int, record: int, unit: int) -> str:
    """The attribute $VOLUME_NAME (0x60) of the file $Volume, record 3 of the master file table."""
    size = 1 << 256 - record if record >= 0xF0 else record * unit
    data = disk.block(table + 3 * size, min(size, 65536))
    if data[:4] != b"FILE":
        return ""
    at = int.from_bytes(data[20:22], "little")
    while at + 24 <= len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if kind == 0x60:
            bytes_, offset = struct.unpack_from("<IH", data, at + 16)
            return _utf16(data[at + offset : at + offset + min(bytes_, 512) // 2 * 2])
        if kind > 0x60 or length < 16:
            return ""
        at += length
    return ""


# -- ISO 9660 ------------------------------------------------------------------------------------


def _iso(disk: Region, head: bytes) -> Iterator[Volume]:
    data = head[32768 : 32768 + 2048]
    if data[1:6] != b"CD001" or data[0] != 1:
        return
    blocks, block = struct.unpack_from("<I", data, 80)[0], struct.unpack_from("<H", data, 128)[0]
    date = data[830:846] if data[830:846].strip(b"0\0") else data[813:829]
    yield Volume("iso9660", _padded(data[40:72]), _date(date), blocks * block)


def _date(digits: bytes) -> str:
    """ "2026112211154900" as 2026-11-22-11-15-49-00, or nothing."""
    text = digits.decode("latin-1")
    if not text.isdecimal() or not text.isascii():
        return ""
    return "-".join([text[:4], *(text[at : at + 2] for at in range(4, 16, 2))])


_FINDERS: tuple[Callable[[Region, bytes], Iterator[Volume]], ...] = (
    _luks, _lvm, _raid, _ext, _xfs, _btrfs, _fat, _exfat, _ntfs, _swap, _squashfs, _iso,
)  # fmt: skip
