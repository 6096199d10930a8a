"""What a virtio device was asked, as its rings show it: sizes of requests, and how many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pyvirt.bench.figure import Figure
from pyvirt.running.vm import RunningVM
from pyvirt.virtio.trace import Trace


def followed(
    running: RunningVM, device: str, work: Callable[[], object], queues: str = ""
) -> list[Figure]:
    """The figures of the rings of `device` whose names begin with `queues`, during `work`."""
    with running.trace(device) as tracer:
        work()
        trace = tracer.stop()
    return list(_figures(trace, queues))


def _figures(trace: Trace, queues: str) -> Iterator[Figure]:
    rows = [one for one in trace.statistics().queues if one.queue and one.requests]
    rows = [one for one in rows if one.queue is not None and one.queue.name.startswith(queues)]
    done = sum(one.done for one in rows)
    if not done:
        return
    yield Figure("request-size", sum(one.bytes for one in rows) / done, "B")
    yield Figure("queue-depth", max(one.depth.percentile(50.0) for one in rows), "1")
    yield Figure("queue-depth-max", max(one.depth.largest for one in rows), "1")
