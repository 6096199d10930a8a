"""How large an image would be: what ``qemu-img measure`` works out, without its walk."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from pyvirt.errors import SpecError
from pyvirt.fields import to_size

#: Bytes before the payload that QEMU's LUKS needs with its default cipher, aes-256 with xts.
LUKS_PAYLOAD = 2068480
MOST_L1 = 32 << 20
SECTOR = 512


@frozen
class Statistics:
    """Bytes of a layer, and how they are scattered."""

    #: Bytes that are stored, of these the compressed ones, and what those take in the file.
    allocated: int
    compressed: int
    stored: int
    #: Bytes that are known to be zero, and those that the layer says nothing about.
    zero: int
    absent: int
    #: Runs of data that are contiguous in guest and file, and blocks that have data.
    pieces: int
    touched: int
    #: How many extents describe the layer.
    extents: int

    @property
    def fragmentation(self) -> float:
        """0 when all data is one run, 1 when no block follows the one before it."""
        return (self.pieces - 1) / (self.touched - 1) if self.touched > 1 else 0.0

    @property
    def compression(self) -> float:
        """Bytes of the guest for each byte of compressed data; 1 without any."""
        return self.compressed / self.stored if self.stored else 1.0


def _one_of(*values: Any) -> Any:
    def check(_: Any, attribute: Any, value: Any) -> None:
        if value not in values:
            raise SpecError(attribute.name, f"must be one of {', '.join(map(str, values))}", value)

    return check


@frozen
class Target:
    """The image that would be made, in the words of ``qemu-img create``."""

    format: str = field(default="qcow2", validator=_one_of("qcow2", "raw", "luks"))
    cluster_size: int = field(
        default=65536,
        kw_only=True,
        converter=to_size,
        validator=_one_of(*(1 << bits for bits in range(9, 22))),
    )
    refcount_bits: int = field(default=16, kw_only=True, validator=_one_of(1, 2, 4, 8, 16, 32, 64))
    extended_l2: bool = field(default=False, kw_only=True)
    compat: str = field(default="1.1", kw_only=True, validator=_one_of("0.10", "1.1"))
    preallocation: str = field(
        default="off", kw_only=True, validator=_one_of("off", "metadata", "falloc", "full")
    )
    #: Whether it gets a backing file: then QEMU takes all of the image for needed.
    backing: bool = field(default=False, kw_only=True)
    #: None or "luks", with QEMU's default cipher.
    encryption: str | None = field(default=None, kw_only=True, validator=_one_of(None, "luks"))

    def __attrs_post_init__(self) -> None:
        if self.compat == "0.10" and (self.refcount_bits != 16 or self.extended_l2):
            raise SpecError("compat", "must be 1.1 for these refcount_bits and extended_l2", "0.10")
        if self.extended_l2 and self.cluster_size < 16384:
            raise SpecError("cluster_size", "must be at least 16384 with extended_l2",
                            self.cluster_size)  # fmt: skip


@frozen
class Measurement:
    """Bytes of the new file: now, when it is full, and of bitmaps if they are copied."""

    required: int
    fully_allocated: int
    bitmaps: int | None = None


def measured(
    target: Target,
    size: int,
    data: int = 0,
    bitmaps: tuple[tuple[str, int], ...] | None = None,
) -> Measurement:
    """What an image of `size` bytes needs, `data` of which are in clusters that are not zero.

    `bitmaps` are names and granularities; None where the source cannot have any.
    """
    if target.format != "qcow2":
        size = _up(size, SECTOR) + (LUKS_PAYLOAD if target.format == "luks" else 0)
        return Measurement(size, size)
    cluster = target.cluster_size
    size = _up(size, cluster)
    if target.backing or target.preallocation in ("falloc", "full"):
        data = size
    full = size + _metadata(target, size)
    if target.encryption:
        full += _up(LUKS_PAYLOAD, cluster)
    told = None if bitmaps is None or target.compat == "0.10" else _bitmaps(size, cluster, bitmaps)
    return Measurement(full - size + data, full, told)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _metadata(target: Target, size: int) -> int:
    """Bytes of header, L1, L2 and refcounts of a full qcow2 image."""
    cluster, entry = target.cluster_size, 16 if target.extended_l2 else 8
    entries = _up(size // cluster, cluster // entry)
    tables = entries * entry // cluster
    if tables * 8 > MOST_L1:
        raise SpecError("size", f"is too large for clusters of {cluster} bytes", size)
    metadata = cluster + entries * entry + _up(tables, cluster // 8) * 8
    clusters = (metadata + size) // cluster
    return metadata + _refcounts(clusters, cluster, target.refcount_bits) * cluster


def _refcounts(clusters: int, cluster: int, bits: int) -> int:
    """Clusters that count `clusters` and themselves."""
    blocks = table = 0
    last = -1
    while (now := clusters + blocks + table) != last:
        last = now
        blocks = -(-now // (cluster * 8 // bits))
        table = -(-blocks // (cluster // 8))
    return blocks + table


def _bitmaps(size: int, cluster: int, bitmaps: tuple[tuple[str, int], ...]) -> int:
    total = directory = 0
    for name, granularity in bitmaps:
        bits = -(-size // granularity)
        clusters = _up(-(-bits // 8), cluster) // cluster
        total += clusters * cluster + _up(clusters * 8, cluster)
        directory += _up(24 + len(name.encode("utf-8", "surrogateescape")), 8)
    return total + _up(directory, cluster)
