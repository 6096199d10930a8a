from typing import Final, Self

from _typeshed import ReadableBuffer

from pyvirt._native.columns import Columns, Reader

TABLES: Final[dict[int, str]]

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
