"""What is kept of a stream: its first bytes, its last ones, and how many there were."""

from __future__ import annotations

from typing import Any

from pyvirt.errors import ImageError

#: The largest first cluster of qcow2, and where VHDX and VMDK tools put their descriptions.
HEAD = 4 << 20
#: The longest footer is that of VMDK, 1536 bytes; the backup GPT has 33 sectors.
TAIL = 256 << 10


class Unseen(ImageError):
    """Bytes of a stream that were not kept."""

    def __init__(self, offset: int) -> None:
        super().__init__("stream", "was read only once, and this part was not kept", offset=offset)


class Window:
    """A `Source` over what was kept; `feed` it until the stream ends."""

    name = "stream"

    def __init__(self, head: int = HEAD, tail: int = TAIL) -> None:
        self.size = 0
        self._most_head, self._most_tail = head, tail
        self._head, self._tail = bytearray(), bytearray()

    def feed(self, data: Any) -> None:
        """The next bytes of the stream."""
        view = memoryview(data).cast("B")
        self.size += len(view)
        room = self._most_head - len(self._head)
        self._head += view[:room]
        self._tail += view[max(room, 0) :][-self._most_tail :]
        del self._tail[: max(0, len(self._tail) - self._most_tail)]

    def pread(self, size: int, offset: int, /) -> bytes:
        end = min(offset + size, self.size)
        if end <= len(self._head):
            return bytes(self._head[offset:end])
        first = self.size - len(self._tail)
        if first <= len(self._head):  # Head and tail meet: everything was kept.
            whole = self._head[offset:] + self._tail[max(0, offset - first) :]
            return bytes(whole[: max(0, end - offset)])
        if offset >= first:
            return bytes(self._tail[offset - first : end - first])
        raise Unseen(offset)
