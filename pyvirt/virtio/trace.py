"""A trace: every request of some queues during some time, as packed records."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import IO, Any, overload

from pyvirt import html
from pyvirt.errors import SpecError
from pyvirt.virtio.captured import Captured
from pyvirt.virtio.merged import merged_buffers
from pyvirt.virtio.quantities import duration
from pyvirt.virtio.records import COLUMNS, NAMES, RECORD, Lost, TracedQueue
from pyvirt.virtio.requests import Request, Seen, decoded
from pyvirt.virtio.requests.net import continuation
from pyvirt.virtio.statistics import Statistics, statistics

Buffer = bytes | bytearray | memoryview
Path = str | os.PathLike[str]

_NOTHING = Lost()
#: What data frames can hold, as ns since 1970.
_LATEST = (1 << 63) - 1
#: Requests that are drawn unasked, in about a second.
_AT_ONCE = 100_000
_QUEUE = NAMES.index("queue")


class Trace(Sequence[Request]):
    """Requests of virtio queues, in the order in which they were made.

    It is a sequence: requests are decoded when they are asked for, a slice is a trace.
    `records` holds a `RECORD` for each request, in any order; `payload` the bytes that they
    point to. `started` and `ended` are ns of CLOCK_MONOTONIC, as in the records; `realtime` is
    what to add to them for ns since 1970. `lost` says what is missing.

    Raises `SpecError` for records that do not fit their queues or their payload.
    """

    def __init__(
        self,
        records: Buffer,
        payload: Buffer,
        queues: Sequence[TracedQueue],
        *,
        lost: Lost = _NOTHING,
        started: int = 0,
        ended: int = 0,
        realtime: int = 0,
    ) -> None:
        self.queues, self.lost = tuple(queues), lost
        self.started, self.ended, self.realtime = started, ended, realtime
        self.payload = memoryview(payload).cast("B")
        whole = memoryview(records).cast("B")
        if len(whole) % RECORD.size:
            raise SpecError("records", f"must be whole records of {RECORD.size} bytes", len(whole))
        self.records = _in_order(whole).toreadonly()
        self._check()

    def _check(self) -> None:
        columns = self.columns
        if not len(self):
            return
        if (last := max(columns["queue"])) >= len(self.queues):
            raise SpecError("records", f"must name one of {len(self.queues)} queues", last)
        latest = self.realtime + max(self.ended, max(columns["made"]), max(columns["done"]))
        if latest > _LATEST:
            raise SpecError("records", "must have times before the year 2262", latest)
        parts = zip(columns["payload"], columns["snapped_readable"], columns["snapped_writable"],
                    strict=True)  # fmt: skip
        if (end := max(map(sum, parts))) > len(self.payload):
            raise SpecError("records", f"must lie in {len(self.payload)} bytes of payload", end)

    @cached_property
    def columns(self) -> dict[str, memoryview]:
        """Each field of the records as a view of memory, without a copy; see `records.NAMES`.

        `numpy.asarray(trace.columns["made"])` is an array over the same bytes.
        """
        return {
            name: self.records.cast(kind)[at // step :: RECORD.size // step]
            for name, (kind, at, step) in COLUMNS.items()
        }

    @cached_property
    def merged(self) -> dict[int, tuple[int, ...]]:
        """The receive buffers of frames that fill several: the places behind the first one's."""
        return merged_buffers(self)

    @cached_property
    def continued(self) -> frozenset[int]:
        """The places of receive buffers into which the frame of an earlier one goes on."""
        return frozenset(place for rest in self.merged.values() for place in rest)

    @property
    def seconds(self) -> float:
        """How long was looked."""
        return max(0, self.ended - self.started) / 1e9

    def __len__(self) -> int:
        return len(self.records) // RECORD.size

    @overload
    def __getitem__(self, place: int) -> Request: ...
    @overload
    def __getitem__(self, place: slice) -> Trace: ...
    def __getitem__(self, place: int | slice) -> Request | Trace:
        places = range(len(self))[place]
        return self._request(places) if isinstance(places, int) else self._picked(places)

    def __iter__(self) -> Iterator[Request]:
        return map(self._request, range(len(self)))

    def queue_of(self, place: int) -> TracedQueue:
        """The queue of the request at a place."""
        return self.queues[self.columns["queue"][place]]

    def captured(self, place: int) -> Captured:
        """The bytes of the request at a place."""
        return self._captured(self._fields(place))

    def seen(self, place: int) -> Seen:
        """When the request at a place was seen."""
        return self._seen(self._fields(place))

    def _fields(self, place: int) -> tuple[int, ...]:
        return RECORD.unpack_from(self.records, place * RECORD.size)

    def _captured(self, fields: tuple[int, ...]) -> Captured:
        _, done, _, at, readable, writable, written, out, into, *_, tail = fields
        middle = at + out
        return Captured(
            bytes(self.payload[at:middle]),
            readable,
            bytes(self.payload[middle : middle + into]),
            writable,
            written if done else None,
            tail if done else None,
        )

    def _seen(self, fields: tuple[int, ...]) -> Seen:
        made, done, order, *_, head, depth, flags, descriptors, _ = fields
        return Seen(made, done or None, self.started, depth, order, head, descriptors, flags)

    def _request(self, place: int) -> Request:
        fields = self._fields(place)
        make = continuation if place in self.continued else decoded
        return make(self.queues[fields[_QUEUE]], self._captured(fields), self._seen(fields))

    def filter(
        self,
        *,
        device: str | None = None,
        queue: int | str | None = None,
        kind: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Trace:
        """The requests of a device (by id), a kind ("virtio-blk") or a queue (number or name).

        `since` and `until` are seconds from the start: of requests made then. What was lost is
        known of all queues together, and stays what it was.
        """
        kept = {
            number
            for number, one in enumerate(self.queues)
            if device in (None, one.device)
            and queue in (None, one.index, one.name)
            and kind in (None, one.kind)
        }
        first = self.started + int((since or 0) * 1e9)
        last = None if until is None else self.started + int(until * 1e9)
        columns = zip(self.columns["queue"], self.columns["made"], strict=True)
        return self._picked(
            [place for place, (number, made) in enumerate(columns)
             if number in kept and first <= made and (last is None or made < last)],
            sorted(kept),
        )  # fmt: skip

    def _picked(self, places: Sequence[int], queues: Sequence[int] | None = None) -> Trace:
        """Some of the requests, and of the queues."""
        size = RECORD.size
        records = bytearray().join(self.records[at * size : (at + 1) * size] for at in places)
        if queues is not None:
            numbers = {old: new for new, old in enumerate(queues)}
            renumber(records, numbers)
        return Trace(
            records,
            self.payload,
            self.queues if queues is None else [self.queues[one] for one in queues],
            lost=self.lost,
            started=self.started,
            ended=self.ended,
            realtime=self.realtime,
        )

    def __add__(self, other: Trace) -> Trace:
        """Both traces as one; see `merge`."""
        return Trace.merge(self, other) if isinstance(other, Trace) else NotImplemented

    @staticmethod
    def merge(*traces: Trace) -> Trace:
        """Several traces as one: of other queues, of other times, of other hosts.

        Their clocks are made one where they tell different times of day.
        """
        from pyvirt.virtio.merging import merged

        return merged(traces)

    def statistics(self) -> Statistics:
        """Rates, sizes, latencies and depths, of each queue and of all together."""
        return statistics(self)

    def to_polars(self) -> Any:
        """A polars data frame with a row for each request; sizes are bytes, latencies seconds."""
        from pyvirt.virtio.tables import polars

        return polars(self)

    def to_pandas(self) -> Any:
        """A pandas data frame with a row for each request; sizes are bytes, latencies seconds."""
        from pyvirt.virtio.tables import pandas

        return pandas(self)

    def pcapng(self, file: Path | IO[bytes]) -> int:
        """Write the frames of virtio-net as pcap-ng, which Wireshark opens; how many there were.

        Each card is an interface; sent frames have the time at which they were made, received
        ones that at which they were seen done. What was lost stands in the statistics at the
        end. Frames are as in the ring: large ones not yet cut into segments, and checksums not
        yet computed where the other side was to do that.
        """
        from pyvirt.virtio.pcapng import write

        return write(self, file)

    def iolog(
        self, file: Path | IO[bytes], *, device: str | None = None, name: str | None = None
    ) -> int:
        """Write reads, writes, flushes and discards for `fio --read_iolog`; how many there were.

        See `pyvirt.virtio.iolog`. `device` is needed when several disks were traced; `name` is
        the file that the log names, else it is the id of the device.
        """
        from pyvirt.virtio.iolog import write

        return write(self, file, device, name)

    def svg(self) -> str:
        """A picture of latencies, sizes and depths over time."""
        from pyvirt.virtio.plot import svg

        return svg(self)

    def png(self) -> bytes:
        """The same as PNG; needs the package cairosvg."""
        from pyvirt.virtio.plot import png

        return png(self)

    def save(self, file: Path) -> None:
        """Write everything into one file, for `Trace.load`."""
        from pyvirt.virtio.tracefile import save

        save(self, file)

    @staticmethod
    def load(file: Path) -> Trace:
        """What `save` wrote. Raises `TraceError` for a file that is none, or is damaged."""
        from pyvirt.virtio.tracefile import load

        return load(file)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        return _facts(self) == _facts(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        devices = list(dict.fromkeys(one.device or one.kind for one in self.queues))
        named = ", ".join(devices[:4]) + ", …" * (len(devices) > 4)
        seconds = duration(self.seconds)
        return f"<Trace: {len(self)} requests of {named or 'nothing'} in {seconds}, {self.lost}>"

    def _repr_html_(self) -> str:
        picture = self.svg() if len(self) <= _AT_ONCE else html.text("Call svg() for a picture.")
        return html.text(repr(self)) + self.statistics()._repr_html_() + picture


def _facts(trace: Trace) -> tuple[object, ...]:
    return (trace.records, trace.payload, trace.queues, trace.lost, trace.started, trace.ended,
            trace.realtime)  # fmt: skip


def _in_order(records: memoryview) -> memoryview:
    """The same records, ordered by when they were made; several of one look by their count."""
    words = records.cast("Q")
    step = RECORD.size // 8
    keys = list(zip(words[0::step], words[2::step], strict=True))
    places = sorted(range(len(keys)), key=keys.__getitem__)
    if places == list(range(len(keys))):
        return records
    size = RECORD.size
    return memoryview(b"".join(records[at * size : (at + 1) * size] for at in places))


def renumber(records: bytearray, numbers: dict[int, int]) -> None:
    """Give the queues of records other numbers."""
    kind, at, step = COLUMNS["queue"]
    column = memoryview(records).cast("B").cast(kind)[at // step :: RECORD.size // step]
    for place, old in enumerate(column):
        column[place] = numbers[old]
