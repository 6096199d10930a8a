"""A flow: a long conversation as a generator that yields steps and does no I/O.

    def unplug(device: str) -> Flow[None]:
        yield Command("device_del", {"id": device})
        yield Until("DEVICE_DELETED", {"device": device}, timeout=10)

A driver begins each step, waits for it and sends its result back in. A refused command
(`CommandError`) and an event that did not come (`TimedOut`) are thrown into the flow, so
undoing is plain ``try``/``except``. `OutOfTime` is thrown in when the whole flow took too
long: undo and let it pass. A test steps a flow with ``send()``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeAlias, TypeVar

from attrs import field, frozen

from pyvirt.errors import PyvirtError
from pyvirt.qmp.event import Event

__all__ = ["Command", "Event", "Flow", "OutOfTime", "Pause", "Step", "Until"]


class OutOfTime(PyvirtError):
    """The time of a whole flow is up; its caller gets `TimedOut`.

    It is another class than that, because a flow may go on after a wait that took too long.
    """


@frozen
class Command:
    """Ask QEMU something. The result is what the reply holds under "return".

    `fds` travel in the same message, for ``getfd`` and ``add-fd``.
    """

    name: str
    arguments: Mapping[str, Any] = field(factory=dict)
    fds: tuple[int, ...] = ()


@frozen
class Until:
    """Wait for one event. The result is that `Event`.

    `match` holds values that the event's data must have, or is a predicate. Every event
    since the flow began counts, and each counts once: an event that arrives before its
    `Until` is not missed. `TimedOut` is thrown in after `timeout` seconds.
    """

    event: str | tuple[str, ...]
    match: Mapping[str, Any] | Callable[[Event], bool] = field(factory=dict)
    timeout: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the events it waits for."""
        return (self.event,) if isinstance(self.event, str) else self.event

    def wants(self, event: Event) -> bool:
        """Whether `event` is what this step waits for."""
        return event.name in self.names and matches(self.match, event)


@frozen
class Pause:
    """Let `seconds` pass."""

    seconds: float


def matches(match: Mapping[str, Any] | Callable[[Event], bool], event: Event) -> bool:
    """Whether `event` has all values of `match`, or satisfies it as a predicate."""
    if callable(match):
        return match(event)
    return all(key in event.data and event.data[key] == value for key, value in match.items())


Step: TypeAlias = Command | Until | Pause
T = TypeVar("T")
Flow: TypeAlias = Generator[Step, Any, T]
