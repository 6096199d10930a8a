"""The check of a QED image: each cluster is named once and lies in the file, none is lost.

What ``qemu-img check`` finds, with the place of each fault. Tables are read in pieces, and one
that is named twice is followed once, so no file asks for more work than its size explains.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyvirt.errors import BudgetError
from pyvirt.image.qcow2.check import MOST_FINDINGS, CheckResult, Finding
from pyvirt.image.source import exactly, name_of

if TYPE_CHECKING:
    from pyvirt.image.formats.qed import QedLayer

_PIECE = 1 << 20  # bytes of a table that are read at once
#: An entry of an L2 table whose cluster reads as zeros.
_ZERO = 1


def check(layer: QedLayer) -> CheckResult:
    """Check the tables of `layer`; takes a byte of memory for each cluster of the file.

    QEMU 7.2 divides by one less than the size of a cluster to number them, and so finds a leak
    that is none for about every `cluster_size` clusters of the file.
    """
    work = _Check(layer)
    work.run()
    return work.result()


class _Check:
    def __init__(self, layer: QedLayer) -> None:
        self.header, self.source, self.size = layer.header, layer.sources[0], layer.size
        self.cluster = self.header.cluster_size
        #: Whole clusters only, as QEMU has it: it grows files by clusters.
        self.clusters = self.source.size // self.cluster
        if self.clusters > layer.budget.memory:
            raise BudgetError(f"the check of {name_of(self.source)}", layer.budget.memory)
        self.named = bytearray(self.clusters)
        self.findings: list[Finding] = []
        self.corruptions = self.leaks = self.overlaps = 0
        self.allocated = self.fragmented = 0

    def run(self) -> None:
        header = self.header
        self.name("header", 40, header.l1_table_offset, header.table_size)
        for place, offset in self.entries(header.l1_table_offset, "L1 table"):
            if self.inside("L1 table", place, offset, header.table_size) and self.name(
                "L1 table", place, offset, header.table_size
            ):
                self.follow(offset)
        self.lost()

    def entries(self, table: int, name: str) -> Iterator[tuple[int, int]]:
        """Places and values of the entries of a table that are not 0."""
        end = table + self.header.table_size * self.cluster
        for offset in range(table, end, _PIECE):
            data = exactly(self.source, min(_PIECE, end - offset), offset, name)
            if data.count(0) != len(data):
                yield from _entries(data, offset)

    def follow(self, table: int) -> None:
        """Name the clusters of an L2 table."""
        last, cluster, named = 0, self.cluster, self.named
        first, end = self.header.header_size, self.clusters
        for place, offset in self.entries(table, "L2 table"):
            if offset == _ZERO:
                continue
            self.allocated += 1
            self.fragmented += bool(last) and last + cluster != offset
            last = offset
            number, odd = divmod(offset, cluster)
            if not odd and first <= number < end and not named[number]:
                named[number] = 1  # As nearly all are.
            elif self.inside("L2 table", place, offset, 1):
                self.name("L2 table", place, offset, 1)

    def inside(self, table: str, place: int, offset: int, clusters: int) -> bool:
        """Whether an entry names whole clusters between the header and the end of the file."""
        first = self.header.header_size * self.cluster
        if offset % self.cluster:
            self.corrupt("misaligned", table, place, offset)
        elif not first <= offset <= (self.clusters - clusters) * self.cluster:
            self.corrupt("outside the file", table, place, offset)
        else:
            return True
        return False

    def name(self, table: str, place: int, offset: int, clusters: int) -> bool:
        """Note that an entry names `clusters` from `offset` on; whether nothing else did."""
        first = offset // self.cluster
        again = sum(self.named[first : first + clusters])
        self.named[first : first + clusters] = b"\1" * clusters
        self.overlaps += again
        if again:
            self.corrupt("names what is named already", table, place, offset, again)
        return not again

    def lost(self) -> None:
        """Clusters behind the header that nothing names."""
        first = self.header.header_size
        self.leaks = self.named.count(0, first)
        while (first := self.named.find(0, first)) >= 0 and len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding("nothing names it", "cluster", first * self.cluster, 0, 1))
            first += 1

    def corrupt(self, fault: str, table: str, place: int, found: int, count: int = 1) -> None:
        self.corruptions += count
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(fault, table, place, found, 0))

    def result(self) -> CheckResult:
        last = self.named.rfind(1) + 1
        return CheckResult(
            corruptions=self.corruptions,
            leaks=self.leaks,
            overlaps=self.overlaps,
            total_clusters=-(-self.size // self.cluster),
            allocated_clusters=self.allocated,
            fragmented_clusters=self.fragmented,
            compressed_clusters=0,
            image_end_offset=max(last, self.header.header_size) * self.cluster,
            findings_lost=max(0, self.corruptions + self.leaks - len(self.findings)),
            findings=self.findings,
        )


def _entries(data: bytes, offset: int) -> Iterator[tuple[int, int]]:
    words = array("Q", data)
    if sys.byteorder == "big":
        words.byteswap()
    for number, word in enumerate(words):
        if word:
            yield offset + 8 * number, word
