"""The snapshot table of a qcow2 image."""

from __future__ import annotations

import struct

from attrs import frozen

from pyvirt.errors import ImageError
from pyvirt.image.qcow2.header import MOST_L1, Header
from pyvirt.image.source import Source, name_of

_ENTRY = struct.Struct(">QIHHIIQII")
#: QEMU's limits: bytes of extra data of a snapshot, and of the whole table.
MOST_EXTRA = 1024
MOST_TABLE = 64 << 20


@frozen(kw_only=True)
class Snapshot:
    """An internal snapshot. `date` is seconds since the epoch, `vm_clock` seconds."""

    id: str
    name: str
    l1_table_offset: int
    l1_size: int
    date: float
    vm_clock: float
    vm_state_size: int
    #: Bytes of the disk in it; None where an old image does not tell.
    size: int | None
    #: Executed instructions, where record/replay counted them.
    icount: int | None = None


def read_snapshots(source: Source, header: Header) -> tuple[tuple[Snapshot, ...], int]:
    """All snapshots, and the bytes of their table."""
    if not header.nb_snapshots:
        return (), 0
    table = _Table(source, header)
    snapshots = tuple(table.next() for _ in range(header.nb_snapshots))
    return snapshots, table.at


class _Table:
    """Reads entry by entry; what is read ahead is bounded by the file and QEMU's limit."""

    def __init__(self, source: Source, header: Header) -> None:
        self.source, self.header, self.at = source, header, 0
        most = min(MOST_TABLE, max(source.size - header.snapshots_offset, 0))
        self.content = source.pread(most, header.snapshots_offset)

    def fail(self, reason: str, found: object = None) -> ImageError:
        return ImageError(name_of(self.source), reason, format="qcow2", table="snapshot table",
                          offset=self.header.snapshots_offset + self.at, found=found)  # fmt: skip

    def next(self) -> Snapshot:
        if len(self.content) - self.at < _ENTRY.size:
            raise self.fail("is truncated")
        l1, entries, id_size, name_size, seconds, nano, clock, state, extra = _ENTRY.unpack_from(
            self.content, self.at
        )
        if extra > MOST_EXTRA:
            raise self.fail("has a snapshot with too much extra data", extra)
        end = self.at + _ENTRY.size + extra + id_size + name_size
        if end > len(self.content):
            raise self.fail("is truncated")
        if entries * 8 > MOST_L1:
            raise self.fail("has a snapshot with an L1 table over 32 MiB", entries)
        more = self.content[self.at + _ENTRY.size :][:extra]
        names = self.content[end - id_size - name_size : end]
        self.at += -(-(end - self.at) // 8) * 8
        return Snapshot(
            id=names[:id_size].decode("utf-8", "surrogateescape"),
            name=names[id_size:].decode("utf-8", "surrogateescape"),
            l1_table_offset=l1, l1_size=entries, date=seconds + nano / 1e9,
            vm_clock=clock / 1e9,
            vm_state_size=_number(more, 0) if extra >= 8 else state,
            size=_number(more, 8) if extra >= 16 else None,
            icount=_icount(more) if extra >= 24 else None,
        )  # fmt: skip


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "big")


def _icount(content: bytes) -> int | None:
    count = _number(content, 16)
    return None if count == (1 << 64) - 1 else count
