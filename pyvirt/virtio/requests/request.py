"""What every decoded request has, and what a request is that nobody decodes."""

from __future__ import annotations

from attrs import frozen

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.quantities import amount, duration
from pyvirt.virtio.records import Flag, TracedQueue


@frozen
class Seen:
    """When a trace saw a request; ns of CLOCK_MONOTONIC."""

    made: int
    #: None while it is in flight.
    done: int | None
    #: When the trace began.
    started: int = 0
    #: Requests in flight on its queue when it was made, with it.
    depth: int = 1
    #: Counts the requests of its queue.
    order: int = 0
    head: int = 0
    descriptors: int = 0
    #: `Flag`
    flags: int = 0


@frozen(kw_only=True, repr=False)
class Request:
    """One request of a guest to a virtio device, or the other way round.

    Sizes and offsets are bytes, times are seconds. What could not be decoded is None or empty,
    and `error` says why: guests may write what they like, and a trace keeps only first bytes.
    """

    #: Where it was made.
    queue: TracedQueue
    #: What it was decoded from.
    captured: Captured
    #: When it was seen; None for requests that were not traced.
    seen: Seen | None = None
    #: What it wants: "read", "transmit", "MAC ADDR_SET".
    operation: str = "unknown"
    #: Where on a disk it begins; None for what has no place.
    offset: int | None = None
    #: Bytes of data that it moves, or concerns; headers do not count.
    length: int = 0
    #: What the device answered ("ok"); None in flight, and for what has no answer.
    status: str | None = None
    #: The data, as much of it as was captured.
    data: bytes = b""
    #: What is wrong with it, or was not captured; None for most.
    error: str | None = None

    @property
    def device(self) -> str:
        """The id of the device; "" when unknown."""
        return self.queue.device

    @property
    def kind(self) -> str:
        """The kind of device: "virtio-blk"."""
        return self.queue.kind

    @property
    def made(self) -> float | None:
        """When it was made, since the trace began."""
        return None if self.seen is None else (self.seen.made - self.seen.started) / 1e9

    @property
    def done(self) -> float | None:
        """When it was seen done, since the trace began; None in flight."""
        seen = self.seen
        return None if seen is None or seen.done is None else (seen.done - seen.started) / 1e9

    @property
    def latency(self) -> float | None:
        """How long it took; None in flight, and for what was done when it was first seen."""
        seen = self.seen
        if seen is None or seen.done is None or seen.flags & Flag.COMPLETED_FIRST_SEEN:
            return None
        return (seen.done - seen.made) / 1e9

    @property
    def depth(self) -> int | None:
        """Requests in flight on its queue when it was made, with it."""
        return None if self.seen is None else self.seen.depth

    @property
    def uncertain(self) -> bool:
        """Whether a trace came late, so that its bytes may be those of a later request."""
        late = Flag.CHAIN_UNCERTAIN | Flag.RESULT_UNCERTAIN
        return self.seen is not None and bool(self.seen.flags & late)

    def summary(self) -> str:
        """What it wants, in a few words."""
        parts = [self.operation]
        if self.length:
            parts.append(amount(self.length))
        if self.offset is not None:
            parts.append(f"at {self.offset}")
        return " ".join(parts)

    def __str__(self) -> str:
        said = [self.summary()]
        said += [self.status] if self.status else []
        said += [] if self.captured.done else ["in flight"]
        said += [duration(self.latency)] if self.latency is not None else []
        said += ["uncertain"] if self.uncertain else []
        said += [f"error: {self.error}"] if self.error else []
        return ", ".join(said)

    def __repr__(self) -> str:
        where = f"{self.device or self.kind} {self.queue.name}"
        return f"<{type(self).__name__} {where}: {self}>"


@frozen(kw_only=True, repr=False)
class UnknownRequest(Request):
    """A request to a device that pyvirt does not decode, or one that cannot be decoded.

    `captured` has its bytes.
    """

    def summary(self) -> str:
        """How many bytes it has for each side."""
        return f"{self.captured.readable_length} bytes out, {self.captured.writable_length} in"


@frozen(kw_only=True, repr=False)
class ControlRequest(Request):
    """A request of a control or event queue; `details` are its fields by their names."""

    details: tuple[tuple[str, object], ...] = ()

    def summary(self) -> str:
        """Its name and its fields."""
        return " ".join([self.operation, *(f"{name}={value}" for name, value in self.details)])


def last(captured: Captured) -> int | None:
    """The last byte that the device may write, where many put their answer; None unknown."""
    if not captured.done or not captured.writable_length:
        return None
    if captured.tail is None and len(captured.writable) >= captured.writable_length:
        return captured.writable[captured.writable_length - 1]
    return captured.tail


def short(what: str, needed: int, captured: bytes, length: int) -> str:
    """Why there is no whole `what` in the first bytes of something `length` bytes long."""
    if length < needed:
        return f"has {length} bytes where its {what} takes {needed}"
    return f"{len(captured)} of the {needed} bytes of its {what} were captured"
