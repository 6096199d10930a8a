from typing import Any, Final, Self

from _typeshed import WriteableBuffer

LIBRARIES: Final[tuple[bytes, ...]]
IVS: Final[dict[str, int]]

__pyx_capi__: dict[str, Any]

class Cipher:
    @property
    def sector(self) -> int: ...
    def __new__(
        cls,
        name: str,
        key: bytes,
        iv: str,
        sector: int = 512,
        salt: bytes = b"",
        salt_name: str = "",
    ) -> Self: ...
    def apply(self, data: WriteableBuffer, place: int, encrypt: bool = False) -> None: ...
