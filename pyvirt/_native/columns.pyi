from typing import Any, Final

from _typeshed import ReadableBuffer

PRIVATE: Final[int]

class Columns:
    def __new__(cls, room: int) -> Columns: ...
    def __len__(self) -> int: ...
    def views(self) -> list[memoryview]: ...
    def add(
        self,
        start: int,
        length: int,
        host: int,
        flags: int,
        depth: int = 0,
        file: int = 0,
        stored: int = 0,
    ) -> None: ...
    def lay(self, top: Columns, below: Columns, below_end: int) -> None: ...
    def mark(self, source: Columns, data: ReadableBuffer, file: int) -> None: ...
    def json(self, compressed: bool, piece: int) -> list[bytearray]: ...

class Reader:
    source: Any
    def __new__(cls, source: Any) -> Reader: ...
