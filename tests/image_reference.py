"""qcow2 decoded slowly, one entry after another, as the specification reads.

No part of pyvirt is used: what C does fast must agree with this on everything.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

ALLOCATED, ZERO, COMPRESSED, PRESENT, OFFSET, ENCRYPTED = 1, 2, 4, 8, 16, 32
DATA = ALLOCATED | PRESENT | OFFSET
MASK = 0x00FFFFFFFFFFFE00
COPIED = 1 << 63
PACKED = 1 << 62


class Broken(Exception):
    """The image breaks the specification, or ends too early."""


class One(NamedTuple):
    start: int
    length: int
    host: int
    stored: int
    depth: int
    file: int
    flags: int


class Disk:
    """The fields of a header that matter here."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        (self.version, self.cluster_bits, self.size, self.crypt, self.l1_size, self.l1_offset,
         self.table_offset, self.table_clusters) = struct.unpack_from(
            ">4xI12xIQIIQQI", image)  # fmt: skip
        features = struct.unpack_from(">Q", image, 72)[0] if self.version == 3 else 0
        order = struct.unpack_from(">I", image, 96)[0] if self.version == 3 else 4
        self.external, self.extended = bool(features & 4), bool(features & 16)
        self.refcount_bits = 1 << order
        self.cluster = 1 << self.cluster_bits

    def word(self, offset: int) -> int:
        if offset + 8 > len(self.image):
            raise Broken(offset)
        return int.from_bytes(self.image[offset : offset + 8], "big")

    def padded(self, offset: int) -> int:
        return int.from_bytes(self.image[offset : offset + 8].ljust(8, b"\0"), "big")

    @property
    def entry_size(self) -> int:
        return 16 if self.extended else 8

    @property
    def per_table(self) -> int:
        return self.cluster // self.entry_size


# -- Extents -----------------------------------------------------------------------------------


def blocks(disk: Disk) -> Iterator[One]:
    """Every cluster or subcluster by itself."""
    for index in range(-(-disk.size // disk.cluster)):
        table, within = divmod(index, disk.per_table)
        guest = index * disk.cluster
        l2 = disk.word(disk.l1_offset + 8 * table) & MASK
        if l2 % disk.cluster:
            raise Broken(l2)
        if l2 == 0:
            yield One(guest, disk.cluster, 0, 0, 0, 0, 0)
            continue
        if l2 + disk.cluster > len(disk.image):
            raise Broken(l2)
        at = l2 + within * disk.entry_size
        yield from _cluster(disk, guest, disk.word(at), disk.word(at + 8) if disk.extended else 0)


def _cluster(disk: Disk, guest: int, entry: int, bitmap: int) -> Iterator[One]:
    secret = ENCRYPTED if disk.crypt else 0
    if entry & PACKED:
        if disk.external:
            raise Broken(guest)
        offset, stored = packed(disk, entry)
        flags = ALLOCATED | PRESENT | COMPRESSED | secret
        yield One(guest, disk.cluster, offset, stored, 0, 0, flags)
        return
    host = entry & MASK
    zeros = not disk.extended and entry & 1
    placed = host != 0 or (disk.external and bool(entry & COPIED) and not zeros)
    if host % disk.cluster or (disk.external and placed and host != guest):
        raise Broken(guest)
    if entry & 1 and disk.version < 3:
        raise Broken(guest)
    file = int(disk.external and placed)
    if not disk.extended:
        flags = (PRESENT | ZERO | OFFSET * placed) if entry & 1 else (DATA | secret) * placed
        yield One(guest, disk.cluster, host, 0, 0, file, flags)
        return
    stored, zero, size = bitmap & 0xFFFFFFFF, bitmap >> 32, disk.cluster // 32
    if stored & zero or (stored and not placed):
        raise Broken(guest)
    for bit in range(32):
        flags = OFFSET * placed
        if stored >> bit & 1:
            flags = DATA | secret
        elif zero >> bit & 1:
            flags |= PRESENT | ZERO
        yield One(guest + bit * size, size, (host + bit * size) * placed, 0, 0, file, flags)


def packed(disk: Disk, entry: int) -> tuple[int, int]:
    """Where a compressed cluster is, and how many bytes it may take."""
    shift = 62 - (disk.cluster_bits - 8)
    offset = entry & ((1 << shift) - 1)
    sectors = (entry & (PACKED - 1)) >> shift
    return offset, (sectors + 1) * 512 - offset % 512


def join(parts: Iterator[One], size: int) -> list[One]:
    """Neighbours that go on become one; the last is cut at `size`."""
    found: list[One] = []
    for part in parts:
        length = min(part.length, size - part.start)
        if length <= 0:
            continue
        part = part._replace(length=length)
        last = found[-1] if found else None
        if (
            last
            and not part.flags & COMPRESSED
            and last[4:] == part[4:]
            and (not part.flags & OFFSET or last.host + last.length == part.host)
        ):
            found[-1] = last._replace(length=last.length + length)
        else:
            found.append(part)
    return found


def extents(image: bytes) -> list[One]:
    """The extents of the active disk; what it does not have has no flags."""
    disk = Disk(image)
    return join(blocks(disk), disk.size)


# -- Chains -------------------------------------------------------------------------------------

UNIT = 512


def units(layer: list[One]) -> dict[int, One]:
    """Every sector by itself."""
    found = {}
    for one in layer:
        for place in range(one.start, one.start + one.length, UNIT):
            into = place - one.start if one.flags & OFFSET else 0
            found[place] = one._replace(start=place, length=UNIT, host=one.host + into)
    return found


def lay(top: list[One], below: list[One]) -> dict[int, One]:
    """`top` over `below`, sector by sector."""
    under, found = units(below), {}
    for place, one in units(top).items():
        if not one.flags & PRESENT:
            if place in under:
                one = under[place]._replace(depth=under[place].depth + 1)
            else:
                one = one._replace(flags=one.flags & OFFSET | ZERO, depth=0)
        found[place] = one
    return found


def map_json(layer: list[One]) -> str:
    """What ``qemu-img map --output=json`` prints for these extents."""
    rows: list[dict[str, object]] = []
    for one in layer:
        row: dict[str, object] = {
            "start": one.start,
            "length": one.length,
            "depth": one.depth,
            "present": bool(one.flags & PRESENT),
            "zero": bool(one.flags & ZERO),
            "data": bool(one.flags & ALLOCATED),
        }
        if one.flags & OFFSET and not one.flags & (COMPRESSED | ENCRYPTED):
            row["offset"] = one.host
        last = rows[-1] if rows else None
        if last and _continues(last, row):
            last["length"] += one.length  # type: ignore[operator]
        else:
            rows.append(row)
    return "[" + ",\n".join(json.dumps(row).replace("{", "{ ") for row in rows) + "]\n"


def _continues(last: dict[str, object], row: dict[str, object]) -> bool:
    names = ("depth", "present", "zero", "data")
    if any(last[name] != row[name] for name in names) or ("offset" in last) != ("offset" in row):
        return False
    return "offset" not in row or last["offset"] + last["length"] == row["offset"]  # type: ignore[operator]


# -- Check --------------------------------------------------------------------------------------


class Checked(NamedTuple):
    corruptions: int
    leaks: int
    allocated: int
    fragmented: int
    compressed: int
    end: int


def refcount(disk: Disk, cluster: int) -> int:
    """The stored refcount of a cluster, 0 where there is no sane block for it."""
    bits = disk.refcount_bits
    table, within = divmod(cluster, disk.cluster * 8 // bits)
    if table >= disk.table_clusters * disk.cluster // 8:
        return 0
    block = disk.padded(disk.table_offset + 8 * table) & ~511
    if block == 0 or block % disk.cluster:
        return 0
    if bits >= 8:
        at = block + within * bits // 8
        return int.from_bytes(disk.image[at : at + bits // 8].ljust(bits // 8, b"\0"), "big")
    at = block + within * bits // 8
    byte = disk.image[at] if at < len(disk.image) else 0
    return byte >> (within * bits % 8) & ((1 << bits) - 1)


class Check:
    """References counted one by one, for an image without snapshots, bitmaps and encryption."""

    def __init__(self, image: bytes) -> None:
        self.disk = Disk(image)
        self.found: Counter[int] = Counter()
        self.corruptions = self.allocated = self.fragmented = self.compressed = 0
        self.clusters = -(-len(image) // self.disk.cluster)

    def run(self) -> Checked:
        disk = self.disk
        self.mark(0, disk.cluster)
        self.mark(disk.l1_offset, disk.l1_size * 8)
        tables = [disk.word(disk.l1_offset + 8 * i) for i in range(disk.l1_size)]
        for entry in tables:
            if entry:
                self.table(entry)
        self.mark(disk.table_offset, disk.table_clusters * disk.cluster)
        self.blocks()
        leaks = self.compare()
        self.copied(tables)
        used = [c for c in range(self.clusters) if self.found[c] or refcount(disk, c)]
        end = (max(used) + 1) * disk.cluster if used else 0
        return Checked(self.corruptions, leaks, self.allocated, self.fragmented,
                       self.compressed, end)  # fmt: skip

    def mark(self, offset: int, size: int) -> None:
        disk = self.disk
        if not size:
            return
        if offset + size - len(disk.image) >= disk.cluster:
            self.corruptions += 1
            return
        for cluster in range(offset // disk.cluster, (offset + size - 1) // disk.cluster + 1):
            if self.found[cluster] == (1 << disk.refcount_bits) - 1:
                self.corruptions += 1
            else:
                self.found[cluster] += 1
            self.clusters = max(self.clusters, cluster + 1)

    def table(self, entry: int) -> None:
        disk, offset, following = self.disk, entry & MASK, 0
        self.corruptions += bool(entry & 0x7F000000000001FF)
        self.corruptions += offset % disk.cluster != 0
        self.mark(offset, disk.cluster)
        for at in range(offset, offset + disk.cluster, disk.entry_size):
            bitmap = disk.padded(at + 8) if disk.extended else 0
            following = self.entry(disk.padded(at), bitmap, following)

    def entry(self, entry: int, bitmap: int, following: int) -> int:
        """Count one L2 entry; where a cluster that continues this one would be."""
        disk, host = self.disk, entry & MASK
        if entry & PACKED:
            self.corruptions += bool(entry & COPIED)
            if disk.external or bitmap:
                self.corruptions += 1
                return following
            self.mark(*packed(disk, entry))
            self.allocated += 1
            self.compressed += 1
            self.fragmented += 1
            return following
        odd = entry & 0x3F000000000001FE or (entry & 1 and (disk.version < 3 or disk.extended))
        self.corruptions += bool(odd)
        if not host and not (disk.external and entry & COPIED):
            zero = entry & 1 and disk.version >= 3 and not disk.extended
            self.corruptions += bool(not zero and bitmap & 0xFFFFFFFF)
            return following
        self.corruptions += bool(bitmap >> 32 & bitmap)
        self.corruptions += host % disk.cluster != 0
        self.allocated += 1
        self.fragmented += bool(following and host != following)
        if not disk.external:
            self.mark(host, disk.cluster)
        return host + disk.cluster

    def blocks(self) -> None:
        disk = self.disk
        for index in range(disk.table_clusters * disk.cluster // 8):
            entry = disk.padded(disk.table_offset + 8 * index)
            offset = entry & ~511
            if entry & 511 or offset % disk.cluster or offset // disk.cluster >= self.clusters:
                self.corruptions += 1
            elif offset:
                self.mark(offset, disk.cluster)
                self.corruptions += self.found[offset // disk.cluster] != 1

    def compare(self) -> int:
        leaks = 0
        for cluster in range(self.clusters):
            stored = refcount(self.disk, cluster)
            self.corruptions += stored < self.found[cluster]
            leaks += stored > self.found[cluster]
        return leaks

    def copied(self, tables: list[int]) -> None:
        disk = self.disk
        wrong: Callable[[int, bool], bool] = lambda entry, one: one != bool(entry & COPIED)  # noqa: E731
        for entry in tables:
            offset = entry & MASK
            if not offset:
                continue
            self.corruptions += wrong(entry, refcount(disk, offset // disk.cluster) == 1)
            for at in range(offset, offset + disk.cluster, disk.entry_size):
                two = disk.padded(at)
                host = two & MASK
                placed = host or (disk.external and two & COPIED)
                if two & PACKED or not placed:
                    continue
                one = disk.external or refcount(disk, host // disk.cluster) == 1
                self.corruptions += wrong(two, one)
