"""qcow2 images of any size for benchmarks, written as metadata without the data."""

from __future__ import annotations

import os
import random
import struct
from array import array
from pathlib import Path

from attrs import frozen

COPIED = 1 << 63
CLUSTER = 1 << 16


@frozen
class Made:
    """An image: `size` bytes of the guest, `clusters` of them allocated in random order."""

    path: Path
    size: int
    clusters: int


def make(
    path: Path,
    size: int,
    clusters: int,
    *,
    extended: bool = False,
    fallocated: bool = False,
    backing: str | None = None,
    seed: int = 1,
) -> Made:
    """A qcow2 image whose data is a hole, or allocated without being written."""
    entry_size = 16 if extended else 8
    per_table = CLUSTER // entry_size
    tables = -(-size // (CLUSTER * per_table))
    l1_clusters = -(-tables * 8 // CLUSTER)
    blocks = 1
    while blocks * CLUSTER // 2 < 2 + blocks + l1_clusters + tables + clusters:
        blocks += 1
    l1 = 2 + blocks
    first_table = l1 + l1_clusters
    first_data = first_table + tables
    total = first_data + clusters
    order = random.Random(seed)
    with open(path, "wb") as file:
        _size(file.fileno(), total * CLUSTER, fallocated)
        file.write(_header(size, tables, l1, backing, extended))
        _put(file, CLUSTER, array("Q", ((2 + block) * CLUSTER for block in range(blocks))))
        _put(file, 2 * CLUSTER, array("H", [1]) * total)
        places = list(range(first_table, first_data))
        order.shuffle(places)
        _put(file, l1 * CLUSTER, array("Q", (place * CLUSTER | COPIED for place in places)))
        words = _entries(size // CLUSTER, clusters, first_data, extended, order)
        step = per_table * (2 if extended else 1)
        for number, place in enumerate(places):
            _put(file, place * CLUSTER, words[number * step : (number + 1) * step])
    return Made(path, size, clusters)


def _size(fd: int, size: int, fallocated: bool) -> None:
    if fallocated:
        os.posix_fallocate(fd, 0, size)
    else:
        os.ftruncate(fd, size)


def _put(file, offset: int, words: array) -> None:  # type: ignore[no-untyped-def, type-arg]
    words.byteswap()
    file.seek(offset)
    file.write(words)


def _entries(guest: int, clusters: int, first: int, extended: bool, order: random.Random) -> array:  # type: ignore[type-arg]
    """L2 entries of the whole disk, in the byte order of this machine."""
    words = array("Q", bytes(8)) * (guest * (2 if extended else 1))
    hosts = list(range(first, first + clusters))
    order.shuffle(hosts)
    for host, index in zip(hosts, order.sample(range(guest), clusters), strict=True):
        if extended:
            stored = order.getrandbits(32)
            words[2 * index] = host * CLUSTER | COPIED
            words[2 * index + 1] = (order.getrandbits(32) & ~stored) << 32 | stored
        else:
            words[index] = host * CLUSTER | COPIED
    return words


def _header(size: int, l1_size: int, l1: int, backing: str | None, extended: bool) -> bytes:
    name = backing.encode() if backing else b""
    fixed = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 512 if name else 0, len(name), 16, size, 0, l1_size,
        l1 * CLUSTER, CLUSTER, 1, 0, 0,
    )  # fmt: skip
    more = struct.pack(">QQQII", 16 if extended else 0, 0, 0, 4, 104)
    form = struct.pack(">II8s", 0xE2792ACA, 5, b"qcow2") if name else b""
    return (fixed + more + form).ljust(512, b"\0") + name
