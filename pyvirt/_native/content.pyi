from collections.abc import Callable
from typing import Any, Self

from _typeshed import ReadableBuffer, WriteableBuffer

from pyvirt._native.cipher import Cipher
from pyvirt._native.columns import Columns

class Work:
    def __new__(cls, room: int) -> Self: ...

class Content:
    def __new__(
        cls,
        columns: Columns,
        size: int,
        origins: list[tuple[Any, int, int, int, Cipher | None, bool, int]],
        first: list[int],
        unpack: Callable[[int, int, int, int], tuple[int, bytes]],
        cache: int,
    ) -> Self: ...
    def close(self) -> None: ...
    def read(self, offset: int, size: int) -> bytes: ...
    def readinto(self, buffer: WriteableBuffer, offset: int) -> int: ...
    def readv(self, offsets: ReadableBuffer, size: int, buffer: WriteableBuffer) -> None: ...

def zeros(data: ReadableBuffer) -> tuple[bool, int]: ...
def differs(a: ReadableBuffer, b: ReadableBuffer) -> int: ...
