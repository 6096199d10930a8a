from collections.abc import Sequence
from typing import Final, Self

from _typeshed import ReadableBuffer

from pyvirt._native.columns import Columns, Reader

PRIVATE: Final[int]
TABLES: Final[dict[int, str]]
FAULTS: Final[dict[int, str]]

class Geometry:
    def __new__(
        cls,
        size: int,
        cluster_bits: int,
        refcount_bits: int,
        zero_flag: bool,
        extended: bool,
        external: bool,
        encrypted: bool,
    ) -> Self: ...
    def extents(
        self,
        reader: Reader,
        l1: ReadableBuffer,
        l1_offset: int,
        start: int,
        stop: int,
        to: Columns,
    ) -> None: ...
    def flatten(
        self,
        layers: Sequence[tuple[Reader, bytes, int]],
        start: int,
        stop: int,
        to: Columns,
    ) -> None: ...
    def used(
        self, reader: Reader, refcount_table: bytes, clusters: int, enough: int
    ) -> int: ...
    def bitmap(
        self, reader: Reader, table: bytes, table_offset: int, bits: bytearray
    ) -> None: ...

def dirty(bits: ReadableBuffer, granularity_bits: int, end: int, to: Columns) -> None: ...

class Refcounts:
    def __new__(
        cls,
        image: Geometry,
        reader: Reader,
        refcount_table: bytes,
        refcount_offset: int,
        clusters: int,
        findings: int,
    ) -> Self: ...
    def stored(self) -> None: ...
    def mark(self, offset: int, size: int, owner: int) -> None: ...
    def bitmap(self, table: bytes, offset: int) -> None: ...
    def l1(self, table: bytes, offset: int) -> None: ...
    def l2(self, table: bytes, offset: int, active: bool) -> None: ...
    def blocks(self) -> None: ...
    def compare(self) -> None: ...
    def counts(self) -> dict[str, int]: ...
    def findings(self) -> memoryview: ...
