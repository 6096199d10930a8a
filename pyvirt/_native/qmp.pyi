from typing import Final, Self, final

from _typeshed import ReadableBuffer

MAX_DEPTH: Final[int]
REASONS: Final[dict[int, str]]

@final
class Scanner:
    def __new__(cls, peer: str, size: int, depth: int) -> Self: ...
    @property
    def base(self) -> int: ...
    @property
    def unwanted(self) -> int: ...
    @property
    def unfinished(self) -> int: ...
    def scan(
        self, buffer: ReadableBuffer, size: int, wanted: bytes | None
    ) -> list[tuple[int, int, int, int, int, int, int]]: ...
    def moved(self) -> None: ...
