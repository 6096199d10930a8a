from typing import Any, Final

from _typeshed import ReadableBuffer

LIBRARIES: Final[dict[str, bytes]]

def libraries() -> dict[str, bool]: ...
def codec(name: str) -> int: ...

__pyx_capi__: dict[str, Any]

class Unpacker:
    def unpack(self, name: str, data: ReadableBuffer, size: int) -> bytes | None: ...
