"""A trace: every request of some queues during some time, as packed records."""

from __future__ import annotations

from collections.abc import Sequence

from pyvirt.virtio.records import RECORD, Lost, TracedQueue


class Trace:
    """Requests of virtio queues in the order in which they were made.

    `records` holds a `RECORD` for each request (in any order), `payload` the bytes that they
    point to. `started` and `ended` are ns of CLOCK_MONOTONIC, as in the records; `realtime` is
    what to add to them for ns since 1970.
    """

    def __init__(
        self,
        records: bytes | bytearray | memoryview,
        payload: bytes | bytearray | memoryview,
        queues: Sequence[TracedQueue],
        *,
        lost: Lost = Lost(),
        started: int = 0,
        ended: int = 0,
        realtime: int = 0,
    ) -> None:
        self._records, self._payload = memoryview(records).cast("B"), memoryview(payload).cast("B")
        self.queues, self.lost = tuple(queues), lost
        self.started, self.ended, self.realtime = started, ended, realtime

    def __len__(self) -> int:
        return len(self._records) // RECORD.size
