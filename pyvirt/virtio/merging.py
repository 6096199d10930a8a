"""Several traces as one."""

from __future__ import annotations

from collections.abc import Sequence

from pyvirt.virtio.records import COLUMNS, RECORD, Lost, TracedQueue
from pyvirt.virtio.trace import Trace, renumber

#: Offsets of one clock to the time of day differ by less, in ns: that is adjusted while it runs.
_ADJUSTED = 1_000_000_000


def merged(traces: Sequence[Trace]) -> Trace:
    """All requests of `traces`, by the clock that began first; equal queues become one."""
    if not traces:
        return Trace(b"", b"", ())
    queues = tuple(dict.fromkeys(queue for one in traces for queue in one.queues))
    records, payload, lost = bytearray(), bytearray(), Lost()
    first = min(one.realtime for one in traces)  # of another clock times might be below 0
    shifts = [_shift(one.realtime - first) for one in traces]
    for one, shift in zip(traces, shifts, strict=True):
        records += _moved(one, queues, len(payload), shift)
        payload += one.payload
        lost += one.lost
    return Trace(
        records,
        payload,
        queues,
        lost=lost,
        started=min(one.started + shift for one, shift in zip(traces, shifts, strict=True)),
        ended=max(one.ended + shift for one, shift in zip(traces, shifts, strict=True)),
        realtime=first,
    )


def _shift(difference: int) -> int:
    """What to add to times for those of the first clock; 0 within one boot."""
    return difference if difference > _ADJUSTED else 0


def _moved(trace: Trace, queues: Sequence[TracedQueue], payload: int, shift: int) -> bytearray:
    """The records for queues, payload and times that stand elsewhere now."""
    records = bytearray(trace.records)
    renumber(records, {at: queues.index(queue) for at, queue in enumerate(trace.queues)})
    _add(records, "payload", payload)
    if shift:
        _add(records, "made", shift)
        _add(records, "done", shift, keep=0)
    return records


def _add(records: bytearray, name: str, value: int, keep: int = -1) -> None:
    kind, at, step = COLUMNS[name]
    column = memoryview(records).cast(kind)[at // step :: RECORD.size // step]
    for place, old in enumerate(column):
        if old != keep:
            column[place] = old + value
