"""QED images: a directory of tables of clusters. Source: QEMU's docs/interop/qed_spec.rst."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import frozen

from pyvirt._native.blocks import Rule
from pyvirt.errors import FeatureError
from pyvirt.image.budget import Budget
from pyvirt.image.formats.blocks import ABSENT, DATA, ZERO, BlockLayer, Directory, Map
from pyvirt.image.formats.qed_check import check
from pyvirt.image.layer import Match, Reference, Siblings
from pyvirt.image.qcow2.check import CheckResult
from pyvirt.image.source import Source, exactly, name_of
from pyvirt.image.structure import Fault, Place, at, power_of_two

MAGIC = b"QED\0"
SECTOR = 512
QED_F_BACKING_FILE, QED_F_NEED_CHECK, QED_F_BACKING_FORMAT_NO_PROBE = 1, 2, 4
_KNOWN = QED_F_BACKING_FILE | QED_F_NEED_CHECK | QED_F_BACKING_FORMAT_NO_PROBE


@frozen
class Header:
    """The header; offsets and sizes in bytes, `table_size` and `header_size` in clusters."""

    magic: bytes = at(0, "4s")
    cluster_size: int = at(4, "I")
    table_size: int = at(8, "I")
    header_size: int = at(12, "I")
    features: int = at(16, "Q")
    compat_features: int = at(24, "Q")
    autoclear_features: int = at(32, "Q")
    l1_table_offset: int = at(40, "Q")
    image_size: int = at(48, "Q")
    backing_filename_offset: int = at(56, "I")
    backing_filename_size: int = at(60, "I")

    @property
    def entries(self) -> int:
        """Entries in each table."""
        return self.table_size * self.cluster_size // 8

    @property
    def need_check(self) -> bool:
        """The image was not closed: its tables may leak clusters."""
        return bool(self.features & QED_F_NEED_CHECK)


def _faults(header: Header, size: int) -> Iterator[Fault]:
    cluster = header.cluster_size
    if header.magic != MAGIC:
        yield "magic", repr(MAGIC)
    if not power_of_two(cluster) or not 4096 <= cluster <= 64 << 20:
        yield "cluster_size", "a power of two from 4096 to 67108864"
    if not power_of_two(header.table_size) or header.table_size > 16:
        yield "table_size", "a power of two up to 16"
    if not 0 < header.header_size * cluster <= max(size, cluster):
        yield "header_size", "clusters inside the file"
    table = header.table_size * cluster
    if header.l1_table_offset % cluster or not cluster <= header.l1_table_offset <= size - table:
        yield "l1_table_offset", "a cluster behind the header and a table before the end"
    if header.image_size % SECTOR or header.image_size > header.entries**2 * cluster:
        yield "image_size", f"whole sectors, at most {header.entries**2 * cluster}"
    yield from _name_faults(header)


def _name_faults(header: Header) -> Iterator[Fault]:
    end = header.backing_filename_offset + header.backing_filename_size
    if header.features & QED_F_BACKING_FILE:
        if not 0 < header.backing_filename_size <= 1023:
            yield "backing_filename_size", "1 to 1023"
        if end > header.header_size * header.cluster_size:
            yield "backing_filename_offset", "a name inside the header"


class QedLayer(BlockLayer):
    """A QED image as a layer of a chain."""

    def __init__(self, map: Map, header: Header, *, budget: Budget, **more: Any) -> None:
        super().__init__(map, header.image_size, header, budget=budget, **more)
        self.header, self.budget = header, budget

    def check(self) -> CheckResult:
        """Each cluster is named once, lies in the file, and none is lost."""
        return check(self)


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    return Match("qed", 98, "begins with 'QED\\0'") if head.startswith(MAGIC) else None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> QedLayer:
    place = Place(name_of(source), "qed", "header")
    header = place.read(Header, source, "<")
    place.check(header, _faults(header, source.size))
    _refuse(place, header)
    size, entries = header.cluster_size, header.entries
    special = ((0, ABSENT), (1, ZERO))
    l1 = Rule(
        block=entries * 8, limit=source.size, flags=[DATA], special=special[:1], reserved=size - 1
    )
    l2 = Rule(block=size, limit=source.size, flags=[DATA], special=special, reserved=size - 1)
    directory = Directory(
        place.table_at(0, "L1 table"), source, header.l1_table_offset, 8, l1, entries, 8
    )
    map = Map(place.table_at(0, "L2 table"), source, l2, size, 8, directory)
    references = _references(place, header, source)
    return QedLayer(map, header, budget=budget, references=references)


def _refuse(place: Place, header: Header) -> None:
    unknown = [bit for bit in range(64) if header.features & ~_KNOWN & 1 << bit]
    if unknown:
        raise FeatureError(place.path, "qed", tuple(f"feature bit {bit}" for bit in unknown))


def _references(place: Place, header: Header, source: Source) -> tuple[Reference, ...]:
    if not header.features & QED_F_BACKING_FILE:
        return ()
    name = exactly(
        source, header.backing_filename_size, header.backing_filename_offset, "backing file name"
    )
    raw = header.features & QED_F_BACKING_FORMAT_NO_PROBE
    text = name.decode("utf-8", "surrogateescape")
    return (Reference("backing", text, "raw" if raw else None),)
