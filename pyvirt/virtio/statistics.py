"""What a trace amounts to: rates, sizes, latencies and depths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen

from pyvirt import html
from pyvirt.virtio.kinds import kind_of
from pyvirt.virtio.quantities import amount, duration, number
from pyvirt.virtio.records import Flag, Lost, TracedQueue
from pyvirt.virtio.requests.net import header_size
from pyvirt.virtio.requests.scsi import ANSWER_SIZE, request_size

if TYPE_CHECKING:
    from pyvirt.virtio.trace import Trace

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_HEADINGS = ("queue", "requests", "/s", "bytes", "bytes/s", "depth p50", "max",
             "latency p50", "p99", "max", "in flight")  # fmt: skip


@frozen
class Bucket:
    """How many values lie from `low` to below `high`; exactly at `low` where both are equal."""

    low: float
    high: float
    count: int


@frozen(repr=False)
class Distribution:
    """How values are spread; all are 0 when there is none."""

    count: int
    smallest: float
    mean: float
    largest: float
    #: Values by percentage: so many percent of all are not larger.
    percentiles: tuple[tuple[float, float], ...]
    #: A histogram, without its empty buckets.
    buckets: tuple[Bucket, ...]

    def percentile(self, percentage: float) -> float:
        """One of `percentiles`; raises `KeyError` for others."""
        return dict(self.percentiles)[percentage]

    def __repr__(self) -> str:
        told = ", ".join(f"p{percent:g} {value:g}" for percent, value in self.percentiles)
        return f"<Distribution: {self.count} values, {told}, largest {self.largest:g}>"


@frozen(repr=False)
class QueueStatistics:
    """One queue, or all of them; times in seconds, sizes in bytes."""

    #: None for all queues together.
    queue: TracedQueue | None
    requests: int
    done: int
    #: Data of requests that were done, without headers and status.
    bytes: int
    seconds: float
    #: Of requests that were seen both made and done.
    latency: Distribution
    #: In flight when each request was made, with it.
    depth: Distribution

    @property
    def in_flight(self) -> int:
        """Requests that were not done at the end."""
        return self.requests - self.done

    @property
    def requests_per_second(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / self.seconds if self.seconds else 0.0

    @property
    def name(self) -> str:
        """The device and the queue: "disk0 request0"; "all"."""
        queue = self.queue
        return f"{queue.device or queue.kind} {queue.name}" if queue else "all"

    def __repr__(self) -> str:
        told = dict(zip(_HEADINGS, self.row(), strict=True))
        return f"<QueueStatistics {', '.join(f'{key} {value}' for key, value in told.items())}>"

    def row(self) -> tuple[str, ...]:
        """The figures as people read them."""
        depth, latency = self.depth, self.latency
        times = latency.percentile(50.0), latency.percentile(99.0), latency.largest
        return (
            self.name,
            str(self.requests),
            number(self.requests_per_second),
            amount(self.bytes),
            amount(self.bytes_per_second),
            f"{depth.percentile(50.0):g}",
            f"{depth.largest:g}",
            *(duration(time) if latency.count else "-" for time in times),
            str(self.in_flight),
        )


@frozen(repr=False)
class Statistics:
    """Each queue, and all together. `str()` is a table."""

    total: QueueStatistics
    queues: tuple[QueueStatistics, ...]
    lost: Lost
    seconds: float = field(default=0.0)

    def __getitem__(self, name: str) -> QueueStatistics:
        """A queue by its name, as in the table: "disk0 request0"."""
        return {one.name: one for one in self.queues}[name]

    def _rows(self) -> list[tuple[str, ...]]:
        return [one.row() for one in (*self.queues, self.total)]

    def __str__(self) -> str:
        rows = [_HEADINGS, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, f"{duration(self.seconds)}, {self.lost}"])

    def __repr__(self) -> str:
        total = self.total
        return (
            f"<Statistics: {total.requests} requests in {duration(self.seconds)}, "
            f"{number(total.requests_per_second)}/s, {amount(total.bytes_per_second)}/s, "
            f"{self.lost}>"
        )

    def _repr_html_(self) -> str:
        return html.table(_HEADINGS, self._rows()) + html.text(
            f"{duration(self.seconds)}, {self.lost}"
        )


def statistics(trace: Trace) -> Statistics:
    """The statistics of a trace."""
    rows: list[list[int]] = [[] for _ in trace.queues]
    for place, number_ in enumerate(trace.columns["queue"]):
        rows[number_].append(place)
    data = _data(trace)
    queues = tuple(
        _figures(trace, queue, places, data)
        for queue, places in zip(trace.queues, rows, strict=True)
    )
    total = _figures(trace, None, range(len(trace)), data)
    return Statistics(total, queues, trace.lost, trace.seconds)


def distribution(values: Sequence[int], unit: float = 1, *, exact: bool = False) -> Distribution:
    """How `values` are spread, told in multiples of `unit`; in buckets of powers of two.

    With `exact` each value is a bucket of its own.
    """
    if not values:
        return Distribution(0, 0, 0, 0, tuple((one, 0.0) for one in PERCENTILES), ())
    ordered = sorted(values)
    count = len(ordered)
    percentiles = tuple(
        (one, ordered[max(0, -int(-count * one // 100) - 1)] * unit) for one in PERCENTILES
    )
    return Distribution(
        count,
        ordered[0] * unit,
        sum(ordered) / count * unit,
        ordered[-1] * unit,
        percentiles,
        tuple(_buckets(ordered, unit, exact)),
    )


def _buckets(ordered: Sequence[int], unit: float, exact: bool) -> list[Bucket]:
    if exact:
        return [Bucket(value * unit, value * unit, n) for value, n in Counter(ordered).items()]
    lengths = Counter(value.bit_length() for value in ordered)
    return [
        Bucket((1 << bits >> 1) * unit, (1 << bits) * unit, count)
        for bits, count in lengths.items()
    ]


def _figures(
    trace: Trace, queue: TracedQueue | None, places: Sequence[int], data: Sequence[int]
) -> QueueStatistics:
    columns = trace.columns
    made, done, flags = columns["made"], columns["done"], columns["flags"]
    unclear = Flag.COMPLETED_FIRST_SEEN.value
    times = [done[at] - made[at] for at in places if done[at] and not flags[at] & unclear]
    depths = [columns["depth"][at] for at in places]
    return QueueStatistics(
        queue,
        len(places),
        sum(1 for at in places if done[at]),
        sum(data[at] for at in places),
        trace.seconds,
        distribution(times, 1e-9),
        distribution(depths, exact=True),
    )


def _data(trace: Trace) -> list[int]:
    """Bytes of data that each request has moved: without headers, 0 while in flight."""
    sizes = [_headers(queue) for queue in trace.queues]
    columns = trace.columns
    fields = (columns[name] for name in ("queue", "done", "readable", "writable", "written"))
    data = []
    for place, (queue, done, readable, writable, written) in enumerate(zip(*fields, strict=True)):
        out, into = (0, 0) if place in trace.continued else sizes[queue]
        moved = max(0, readable - out) + max(0, min(written, writable) - into)
        data.append(moved if done else 0)
    return data


def _headers(queue: TracedQueue) -> tuple[int, int]:
    """Bytes that are no data: before what the device reads, and in what it writes."""
    kind = kind_of(queue.kind)
    if kind == "virtio-blk":
        return 16, 1
    if kind == "virtio-net":
        return (2, 1) if queue.name == "control" else (header_size(queue.features),) * 2
    if kind == "virtio-scsi" and queue.index >= 2:
        return request_size(queue.features), ANSWER_SIZE
    return 0, 0


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """Names to the left, figures to the right."""
    return [
        text.rjust(width) if place else text.ljust(width)
        for place, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
