from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

from _typeshed import ReadableBuffer, WriteableBuffer

REASONS: Final[dict[int, str]]
SAMPLE_SIZE: Final[int]
STATE_SIZE: Final[int]
CHAIN_SIZE: Final[int]
DESC_SIZE: Final[int]

class Memory:
    def __new__(
        cls, regions: Sequence[tuple[int, int, ReadableBuffer | None, int, int]]
    ) -> Self: ...
    def end(self, error: BaseException) -> None: ...
    def reach(self, guest: int, size: int) -> int: ...
    def read(self, guest: int, size: int) -> bytes: ...
    def readinto(self, guest: int, buffer: WriteableBuffer) -> None: ...

class Queue:
    memory: Memory
    device: Any
    queue: Any
    def __new__(
        cls,
        memory: Memory,
        desc: int,
        driver: int,
        device_area: int,
        features: int,
        size: int,
        packed: bool,
        device: str | None = None,
        queue: int | None = None,
    ) -> Self: ...
    def know(self, used: int, wrap: bool) -> None: ...
    def look(self) -> bytes: ...
    def areas(self) -> tuple[bytes, bytes, bytes, bytes, bool]: ...
    def chain(self, head: int, wrap: bool) -> tuple[bytes, bytes]: ...
    def walk(
        self, start: int, stop: int, wrap: bool, chains: WriteableBuffer, descs: WriteableBuffer
    ) -> tuple[int, int]: ...

class Queues:
    def __new__(cls, queues: Iterable[Queue]) -> Self: ...
    def __len__(self) -> int: ...
    def sample(self, samples: WriteableBuffer) -> None: ...
