from collections.abc import Sequence
from typing import Final, final

from _typeshed import ReadableBuffer

from pyvirt._native.columns import Columns

DIVIDED: Final[int]
INVALID: Final[int]
OK: Final[int]
CORRUPT: Final[int]
TRUNCATED: Final[int]
FULL: Final[int]

@final
class Rule:
    def __new__(
        cls,
        *,
        block: int,
        limit: int,
        flags: Sequence[int],
        special: Sequence[tuple[int, int]] = (),
        base: int = 0,
        unit: int = 1,
        mask: int = 0xFFFFFFFFFFFFFFFF,
        high_mask: int = 0,
        reserved: int = 0,
        period: int = 0,
        width: int = 8,
        big: bool = False,
        chained: bool = False,
        shift: int = 0,
        high_shift: int = 0,
        packed: int = 63,
        packed_bits: int = 0,
        state_shift: int = 0,
        state_mask: int = 0,
        file: int = 0,
        stored: int = 0,
    ) -> Rule: ...
    def decode(
        self,
        to: Columns,
        table: ReadableBuffer,
        first: int,
        index: int,
        guest: int,
        end: int,
    ) -> tuple[int, int, int, int]: ...

def divide(
    to: Columns,
    bitmap: ReadableBuffer,
    big: bool,
    sector: int,
    host: int,
    set: int,
    clear: int,
    index: int,
    guest: int,
    end: int,
    file: int = 0,
) -> int: ...
