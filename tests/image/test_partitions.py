"""Partition tables and file systems, as the tools that make them tell of them."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import uuid
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.image import Image
from pyvirt.image.filesystems import Volume, volumes
from pyvirt.image.inside import MOST_PARTS, Inside, inside
from pyvirt.image.partitions import Table, partition_table
from pyvirt.image.region import Region

MIB = 1 << 20


class Memory:
    """A disk in memory that counts what is read of it."""

    def __init__(self, content: bytes) -> None:
        self.content, self.size, self.reads = content, len(content), 0

    def read(self, offset: int, size: int) -> bytes:
        self.reads += 1
        return self.content[offset : offset + size]


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name, path=PATH) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def run(*words: str | Path, told: str = "", good: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run([str(word) for word in words], input=told, capture_output=True, text=True,
                          timeout=60, env={"PATH": PATH, "LC_ALL": "C"})  # fmt: skip
    assert done.returncode in good, done.stdout + done.stderr
    return done.stdout


def blank(path: Path, size: int = 64 * MIB) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def found(path: Path, **options: bool) -> Inside:
    with Image(path, "raw") as image:
        return inside(image, **options)


def table_of(content: bytes) -> Table:
    table = partition_table(Region(Memory(content)))
    assert table is not None
    return table


# -- Tables --------------------------------------------------------------------------------------

LAYOUTS = {
    "gpt": "label: gpt\nsize=8M, name=one, bootable\nsize=16M, type=swap, name=zweï\n"
    "start=100000, size=2048, attrs=GUID:3\n",
    "gpt-4-entries": "label: gpt\ntable-length: 4\nsize=8M\n",
    "mbr": "label: dos\nsize=8M, bootable\nsize=8M, type=82\n",
    "mbr-logical": "label: dos\nsize=4M\nsize=40M, type=extended\nsize=4M\nsize=4M, type=83\n"
    "size=8M, type=7\n",
    "mbr-many": "label: dos\nsize=60M, type=f\n" + "size=1M\n" * 25,
}


@needs("sfdisk")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tables_are_told_as_sfdisk_tells_them(tmp_path: Path, layout: str) -> None:
    disk = blank(tmp_path / "disk")
    run("sfdisk", "-q", disk, told=LAYOUTS[layout])
    told = json.loads(run("sfdisk", "-J", disk))["partitiontable"]
    table = found(disk).table
    assert table is not None
    assert table.flaws == ()
    assert (table.kind, table.id) == (
        {"dos": "mbr"}.get(told["label"], told["label"]),
        told["id"].lower().removeprefix("0x"),
    )
    assert [_row(one) for one in told["partitions"]] == [
        (one.number, one.start, one.size, one.type, one.name, one.uuid) for one in table.partitions
    ]


def _row(one: dict[str, Any]) -> tuple[Any, ...]:
    number = int(one["node"].rpartition("disk")[2])
    kind = one["type"].lower()
    kind = kind if "-" in kind else f"0x{int(kind, 16):02x}"
    return (number, one["start"] * 512, one["size"] * 512, kind, one.get("name", ""),
            one.get("uuid", "").lower())  # fmt: skip


@needs("sfdisk")
def test_what_boots_is_marked(tmp_path: Path) -> None:
    for layout in ("gpt", "mbr"):
        disk = blank(tmp_path / layout)
        run("sfdisk", "-q", disk, told=LAYOUTS[layout])
        table = found(disk).table
        assert table is not None
        if layout == "mbr":
            assert [one.bootable for one in table.partitions] == [True, False]


@needs("parted")
def test_tables_of_parted_are_read(tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk")
    run("parted", "-s", disk, "mklabel", "gpt", "mkpart", "a", "1MiB", "5MiB", "mkpart", "b",
        "5MiB", "100%", "set", "1", "legacy_boot", "on")  # fmt: skip
    table = found(disk).table
    assert table is not None
    assert [(one.name, one.start, one.bootable) for one in table.partitions] == [
        ("a", MIB, True),
        ("b", 5 * MIB, False),
    ]


@needs("sgdisk")
def test_a_hybrid_table_is_told_as_both(tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk")
    run("sgdisk", "-n", "1:2048:+8M", "-n", "2:0:+8M", "-h", "1", disk)
    table = found(disk).table
    assert table is not None
    assert table.kind == "gpt"
    assert [(one.start, one.size) for one in table.hybrid] == [(MIB, 8 * MIB)]
    assert [one.code for one in table.flaws] == ["hybrid"]


def crc(data: bytes) -> int:
    return zlib.crc32(data)


def gpt(
    entries: list[tuple[int, int]],
    *,
    size: int = 4 * MIB,
    sector: int = 512,
    count: int = 128,
    told: int | None = None,
    entry: int = 128,
) -> bytearray:
    """A disk with both tables; `entries` are first and last sectors, `told` their told number."""
    rows = b"".join(
        struct.pack("<16s16sQQQ72s", b"\1" * 16, bytes([n % 256]) * 16, first, last, 0, b"p\0")
        for n, (first, last) in enumerate(entries)
    ).ljust(count * 128, b"\0")
    whole = bytearray(size)
    end = size // sector - 1

    def header(own: int, other: int, place: int) -> bytes:
        fields = [b"EFI PART", 0x10000, 92, 0, 0, own, other, 34, end - 34, b"\7" * 16, place,
                  count if told is None else told, entry, crc(rows)]  # fmt: skip
        layout = "<8sIIIIQQQQ16sQIII"
        fields[3] = crc(struct.pack(layout, *fields))
        return struct.pack(layout, *fields)

    protective = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, end)
    whole[446:462], whole[510:512] = protective, b"\x55\xaa"
    behind = end - -(-len(rows) // sector)
    for own, other, place in ((1, end, 2), (end, 1, behind)):
        whole[own * sector : own * sector + 92] = header(own, other, place)
        whole[place * sector : place * sector + len(rows)] = rows
    return whole


def codes(content: bytes | bytearray) -> list[str]:
    return [one.code for one in table_of(bytes(content)).flaws]


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_whole_gpt_has_no_flaws(sector: int) -> None:
    table = table_of(bytes(gpt([(40, 49), (50, 50)], sector=sector)))
    assert (table.kind, table.sector, table.flaws) == ("gpt", sector, ())
    assert [(one.start // sector, one.size // sector) for one in table.partitions] == [
        (40, 10),
        (50, 1),
    ]
    assert table.id == str(uuid.UUID(bytes_le=b"\7" * 16))


def damaged(place: int, data: bytes, **options: Any) -> bytearray:
    whole = gpt([(40, 49)], **options)
    place %= len(whole)
    whole[place : place + len(data)] = data
    return whole


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(damaged(512, bytes(92)), ["gpt-primary"], id="primary-gone"),
        pytest.param(damaged(512 + 56, b"x"), ["gpt-crc", "gpt-primary"], id="primary-damaged"),
        pytest.param(damaged(-512, bytes(92)), ["gpt-backup"], id="backup-gone"),
        pytest.param(damaged(-512 + 56, b"x"), ["gpt-crc", "gpt-backup"], id="backup-damaged"),
        pytest.param(damaged(1024 + 16, b"x"), ["gpt-crc"], id="entries-damaged"),
        pytest.param(damaged(512 + 12, b"\0"), ["gpt-header", "gpt-primary"], id="header-size"),
        pytest.param(damaged(510, b"\0\0"), ["no-mbr"], id="no-mbr"),
        pytest.param(damaged(450, b"\0"), ["no-mbr"], id="not-protected"),
        pytest.param(gpt([(40, 1 << 60)]), ["beyond-end"], id="beyond-end"),
        pytest.param(gpt([(40, (1 << 64) - 1)]), ["beyond-end"], id="last-sector-2^64"),
        pytest.param(gpt([(40, 60), (50, 70)]), ["overlap"], id="overlap"),
        pytest.param(gpt([(40, 39)]), ["empty"], id="no-size"),
        pytest.param(gpt([], told=1 << 31), ["too-many", "too-many"], id="2^31-entries"),
        pytest.param(gpt([], told=(1 << 32) - 1, entry=(1 << 32) - 1), ["too-many", "too-many"],
                     id="2^32-entries-of-4-gib"),
        pytest.param(gpt([], entry=1), ["too-many", "too-many"], id="entries-of-a-byte"),
    ],
)  # fmt: skip
def test_damage_of_a_gpt_is_told(content: bytearray, expected: list[str]) -> None:
    assert codes(content) == expected


def test_the_backup_stands_in() -> None:
    table = table_of(bytes(damaged(1024 + 16, b"x")))
    assert len(table.partitions) == 1
    assert len(table_of(bytes(damaged(512, bytes(512)))).partitions) == 1


def entry(kind: int, first: int, sectors: int, flag: int = 0) -> bytes:
    return struct.pack("<B3xB3xII", flag, kind, first, sectors)


def mbr(records: dict[int, list[bytes]], size: int = 4 * MIB) -> bytes:
    whole = bytearray(size)
    for sector, entries in records.items():
        at = sector * 512
        whole[at + 446 : at + 446 + 16 * len(entries)] = b"".join(entries)
        whole[at + 510 : at + 512] = b"\x55\xaa"
    return bytes(whole)


@pytest.mark.parametrize(
    ("content", "numbers", "expected"),
    [
        pytest.param(mbr({0: [entry(5, 100, 1000)], 100: [entry(0x83, 1, 9), entry(5, 0, 9)]}),
                     [1, 5], [], id="next-is-0"),
        pytest.param(mbr({0: [entry(5, 100, 1000)], 100: [entry(0x83, 1, 9), entry(5, 10, 9)],
                          110: [entry(0x83, 1, 9), entry(5, 10, 9)]}),
                     [1, 5, 6], ["ebr-loop"], id="self-reference"),
        pytest.param(mbr({0: [entry(5, 100, 1000)], 100: [entry(0x83, 1, 9), entry(5, 50, 9)]}),
                     [1, 5], ["ebr-missing"], id="no-record"),
        pytest.param(mbr({0: [entry(5, 1 << 31, 9)]}), [1], ["ebr-missing", "beyond-end"],
                     id="record-beyond-the-end"),
        pytest.param(mbr({0: [entry(0x83, 10, 20), entry(0x83, 20, 20)]}), [1, 2], ["overlap"],
                     id="overlap"),
        pytest.param(mbr({0: [entry(0xEE, 1, 9)]}), [1], ["gpt-missing"], id="no-gpt"),
    ],
)  # fmt: skip
def test_hostile_extended_partitions_end(
    content: bytes, numbers: list[int], expected: list[str]
) -> None:
    table = table_of(content)
    assert [one.number for one in table.partitions] == numbers
    assert [one.code for one in table.flaws] == expected


def test_a_chain_of_thousands_is_cut() -> None:
    records = {0: [entry(5, 1, 8000)]}
    for sector in range(1, 8000):
        records[sector] = [entry(0x83, 0, 1), entry(5, sector, 1)]
    table = table_of(mbr(records))
    assert len(table.partitions) == 257
    assert "too-many" in [one.code for one in table.flaws]


def test_thousands_of_overlapping_partitions_are_not_all_looked_into() -> None:
    disk = Memory(bytes(gpt([(2100, 2200)] * 8000, size=8 * MIB, count=8000)))
    result = inside(disk, nested=True)
    assert len(result.parts) < MOST_PARTS
    assert result.flaws[-1].code == "too-many"
    assert disk.reads < 20 * MOST_PARTS


@given(st.data())
def test_damaged_tables_give_flaws_and_nothing_else(data: st.DataObject) -> None:
    logical = {0: [entry(5, 100, 1000), entry(0x83, 10, 20)],
               100: [entry(0x83, 1, 9), entry(5, 10, 9)],
               110: [entry(0x83, 1, 9), entry(5, 20, 9)], 120: [entry(0x83, 1, 9)]}  # fmt: skip
    whole = data.draw(st.sampled_from([gpt([(40, 49)], size=MIB), bytearray(mbr(logical, MIB))]))
    places = st.integers(440, 1200) | st.integers(100 * 512 + 440, 100 * 512 + 512)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        whole[place] = byte
    cut = data.draw(st.none() | st.integers(0, 2000))
    disk = Memory(bytes(whole[:cut]))
    result = inside(disk)
    assert disk.reads < 20 * MOST_PARTS
    assert all(isinstance(one.sentence, str) for one in result.flaws)


# -- File systems --------------------------------------------------------------------------------

NAME = "Daten"
UUID = "12345678-1234-4321-8765-123456789abc"
MAKERS: dict[str, tuple[int, list[str]]] = {
    "ext2": (8, ["mkfs.ext2", "-q", "-L", NAME, "-U", UUID]),
    "ext3": (8, ["mkfs.ext3", "-q", "-L", NAME, "-U", UUID]),
    "ext4": (8, ["mkfs.ext4", "-q", "-L", NAME, "-U", UUID]),
    "ext4-64bit": (8, ["mkfs.ext4", "-q", "-O", "64bit", "-b", "4096"]),
    "xfs": (310, ["mkfs.xfs", "-q", "-L", NAME, "-m", f"uuid={UUID}"]),
    "btrfs": (120, ["mkfs.btrfs", "-q", "-L", NAME, "-U", UUID]),
    "fat12": (2, ["mkfs.vfat", "-F", "12", "-n", NAME.upper(), "-i", "1234abcd"]),
    "fat16": (16, ["mkfs.vfat", "-F", "16", "-n", NAME.upper()]),
    "fat32": (64, ["mkfs.vfat", "-F", "32", "-n", NAME.upper()]),
    "fat-unnamed": (16, ["mkfs.vfat"]),
    "exfat": (8, ["mkfs.exfat", "-L", NAME]),
    "ntfs": (8, ["mkntfs", "-q", "-F", "-f", "-L", NAME]),
    "swap": (8, ["mkswap", "-L", NAME, "-U", UUID]),
    "luks1": (8, ["cryptsetup", "-q", "luksFormat", "--type", "luks1", "--pbkdf-force-iterations",
                  "1000"]),
    "luks2": (24, ["cryptsetup", "-q", "luksFormat", "--type", "luks2", "--label", NAME, "--pbkdf",
                   "pbkdf2", "--pbkdf-force-iterations", "1000"]),
}  # fmt: skip
VERSIONS = {"fat12": "FAT12", "fat16": "FAT16", "fat32": "FAT32", "luks1": "1", "luks2": "2"}


def blkid(path: Path) -> dict[str, str]:
    told = run("blkid", "-p", "-o", "export", path)
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


def compare(volume: Volume, told: dict[str, str]) -> None:
    assert volume.kind == told["TYPE"]
    assert volume.label == told.get("LABEL", "").replace("\\", "")
    assert volume.uuid == told.get("UUID", "")


@pytest.mark.parametrize("name", MAKERS)
def test_file_systems_are_told_as_blkid_tells_them(tmp_path: Path, name: str) -> None:
    size, words = MAKERS[name]
    if shutil.which(words[0], path=PATH) is None:
        pytest.skip(f"{words[0]} is not installed")
    disk = blank(tmp_path / "disk", size * MIB)
    run(*words, disk, told="secret")
    (volume,) = found(disk).parts[0].volumes
    told = blkid(disk)
    compare(volume, told)
    assert volume.version == VERSIONS.get(name, volume.version)
    if "luks" not in name:
        assert 0.9 * size * MIB < volume.size <= size * MIB
    if "FSSIZE" in told and name.startswith("ext"):
        assert volume.size >= int(told["FSSIZE"])


@needs("mksquashfs")
def test_squashfs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    disk = tmp_path / "disk"
    run("mksquashfs", tmp_path / "file", disk, "-quiet", "-no-progress")
    (volume,) = found(disk).parts[0].volumes
    compare(volume, blkid(disk))
    assert volume.version == blkid(disk)["VERSION"]
    assert 0 < volume.size <= disk.stat().st_size


@needs("genisoimage")
def test_iso(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    disk = tmp_path / "disk"
    run("genisoimage", "-quiet", "-V", NAME, "-o", disk, tmp_path / "file")
    (volume,) = found(disk).parts[0].volumes
    compare(volume, blkid(disk))
    assert volume.size == disk.stat().st_size


@needs("pvcreate")
def test_lvm(tmp_path: Path) -> None:
    """`pvcreate` wants a device, so its label is written by hand, as LVM2 lays it out."""
    disk = blank(tmp_path / "disk", 8 * MIB)
    identity = b"abcdefGHIJklmnOPQRstuvWXYZ012345"
    body = struct.pack("<I8s", 32, b"LVM2 001") + identity + struct.pack("<Q", 8 * MIB)
    body = body.ljust(512 - 20, b"\0")
    sum_ = 0xF597A6CF  # LVM2's first value of its CRC
    for byte in body:
        sum_ ^= byte
        for _ in range(8):
            sum_ = sum_ >> 1 ^ (0xEDB88320 if sum_ & 1 else 0)
    with open(disk, "r+b") as file:
        file.seek(512)
        file.write(struct.pack("<8sQI", b"LABELONE", 1, sum_) + body)
    (volume,) = found(disk).parts[0].volumes
    compare(volume, blkid(disk))
    assert volume.size == 8 * MIB


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "0.90"])
def test_raid(tmp_path: Path, version: str) -> None:
    """`mdadm` wants devices, so the superblock is written by hand; blkid is asked about it."""
    size, number = 8 * MIB, bytes(range(1, 17))
    disk = blank(tmp_path / "disk", size)
    block = bytearray(4096 if version == "0.90" else 256)
    struct.pack_into("<II", block, 0, 0xA92B4EFC, 0 if version == "0.90" else 1)
    if version == "0.90":
        place = (size & ~0xFFFF) - 0x10000
        struct.pack_into("<I", block, 8, 90)
        block[20:24], block[52:64] = number[:4], number[4:]
        struct.pack_into("<I", block, 32, 7 * 1024)
    else:
        place = {"1.0": ((size // 512 - 16) & ~7) * 512, "1.1": 0, "1.2": 4096}[version]
        block[16:32], block[32:37] = number, b"h:md0"
        struct.pack_into("<Q", block, 80, 7 * MIB // 512)
        struct.pack_into("<Q", block, 144, place // 512)
        words = struct.unpack("<64I", block)
        struct.pack_into("<I", block, 216, (sum(words) & 0xFFFFFFFF) + (sum(words) >> 32))
    with open(disk, "r+b") as file:
        file.seek(place)
        file.write(block)
    (volume,) = found(disk).parts[0].volumes
    assert (volume.version, volume.size) == (version, 7 * MIB)
    compare(volume, blkid(disk))


MAGICS = [b"\x53\xef", b"XFSB", b"NTFS    ", b"EXFAT   ", b"LABELONE", b"hsqs", b"LUKS\xba\xbe"]


@given(st.binary(max_size=80), st.integers(0, 3000), st.sampled_from(MAGICS))
def test_no_content_breaks_the_finders(data: bytes, place: int, magic: bytes) -> None:
    at = {b"\x53\xef": 1080, b"NTFS    ": 3, b"EXFAT   ": 3}.get(magic, 0)
    whole = bytearray(70_000)
    whole[place : place + len(data)] = data
    whole[at : at + len(magic)] = magic
    whole[510:512] = b"\x55\xaa"
    for one in volumes(Region(Memory(bytes(whole)))):
        assert isinstance(one.label, str)


@needs("mkfs.ext4", "mkfs.vfat")
def test_old_signatures_are_told_beside_new_ones(tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk", 8 * MIB)
    run("mkfs.ext4", "-q", disk)
    content = bytearray(disk.read_bytes())
    run("mkfs.vfat", disk)
    content[:512] = disk.read_bytes()[:512]
    disk.write_bytes(content)
    assert {one.kind for one in found(disk).parts[0].volumes} == {"ext4", "vfat"}


# -- All together --------------------------------------------------------------------------------


@needs("sfdisk", "mkfs.ext4", "mkfs.vfat")
def test_a_disk_with_everything(tmp_path: Path) -> None:
    disk, part = blank(tmp_path / "disk", 40 * MIB), blank(tmp_path / "part", 16 * MIB)
    run("sfdisk", "-q", disk, told="label: gpt\nsize=16M\nsize=4M\nsize=8M\n")
    run("mkfs.ext4", "-q", "-L", "root", part)
    inner = blank(tmp_path / "inner", 4 * MIB)
    run("mkfs.vfat", "-n", "INNER", inner)
    run("qemu-img", "convert", "-O", "qcow2", inner, tmp_path / "inner.qcow2")
    with open(disk, "r+b") as file:
        file.seek(MIB)
        file.write(part.read_bytes())
        file.seek(17 * MIB)
        file.write((tmp_path / "inner.qcow2").read_bytes())
    run("qemu-img", "convert", "-O", "qcow2", "-c", disk, tmp_path / "disk.qcow2")
    with Image(tmp_path / "disk.qcow2") as image:
        plain, deep = inside(image), inside(image, nested=True)
    assert [part.image for part in plain.parts] == [None, "qcow2", None]
    assert plain.parts[1].inside is None
    ((part_, volume),) = plain.find("ext4")
    assert part_.partition is not None
    assert (part_.partition.number, volume.label) == (1, "root")
    assert [*plain.find("vfat")] == []
    assert [volume.label for _, volume in deep.find("vfat")] == ["INNER"]


def test_a_nested_image_that_is_broken_is_a_flaw(tmp_path: Path) -> None:
    whole = gpt([(2048, 4095)], size=4 * MIB)
    whole[MIB : MIB + 8] = b"QFI\xfb\0\0\0\3"
    result = inside(Memory(bytes(whole)), nested=True)
    assert [one.code for one in result.flaws] == ["nested"]


def test_an_empty_disk_has_nothing() -> None:
    for size in (0, 1, 511, 512, 513, 100_000):
        result = inside(Memory(bytes(size)))
        assert (result.table, [part.volumes for part in result.parts]) == (None, [()])
