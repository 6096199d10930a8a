from typing import Final

from _typeshed import ReadableBuffer

LIBRARIES: Final[dict[str, bytes]]

def libraries() -> dict[str, bool]: ...
def codec(name: str) -> int: ...

@disjoint_base
class Unpacker:
    def unpack(self, name: str, data: ReadableBuffer, size: int) -> bytes | None: ...
