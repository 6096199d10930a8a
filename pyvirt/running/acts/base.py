"""What all acts share: the way to whoever answers inside, and for VMs the engine."""

from __future__ import annotations

import re
from concurrent.futures import Future
from typing import Protocol, TypeVar

from pyvirt.errors import CommandError, UnsupportedError
from pyvirt.flows.steps import Act, Within
from pyvirt.guest.carrier import Carrier
from pyvirt.running.console import Console
from pyvirt.running.engine import Engine

T = TypeVar("T")

#: Seconds that a guest gets to boot until its agent answers: TCG on a busy host is slow.
BOOT = 120.0

#: Seconds that a guest gets to power off, or to let go of a device.
PATIENCE = 30.0


def needing(flow: Act[T], device: str, hint: str) -> Act[T]:
    """`flow`; where QEMU refuses because it has no such device, `hint` says how to have one."""
    try:
        return (yield from flow)
    except CommandError as error:
        if _ABSENT.search(error.desc) is None:
            raise
        raise UnsupportedError(device, "this VM", hint) from error


# What QEMU says of a device that is not there; most of it is of kind GenericError.
_ABSENT = re.compile(
    "No balloon device|There is no console|Could not set password|SPICE is not in use|"
    "Input handler not found"
)


class Place(Protocol):
    """A machine or a container, in which somebody may answer."""

    @property
    def name(self) -> str: ...
    @property
    def carrier(self) -> Carrier: ...
    def first_console(self) -> Console: ...


class Answering:
    """Acts on whoever answers in `place`."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def answered(self, future: Future[T], timeout: float | None, what: str) -> Act[T]:
        """The outcome of what was asked inside; given up after `timeout` seconds."""
        try:
            answer: T = yield Within(future, timeout, f"{what} in {self.place.name}")
        except BaseException:
            future.cancel()
            raise
        return answer

    def agent(self, timeout: float | None = BOOT) -> Act[Carrier]:
        """The agent that answers inside, waited for at most `timeout` seconds."""
        carrier = self.place.carrier
        if not carrier.ready.done() or carrier.ready.exception() is not None:
            yield Within(carrier.ready, timeout, f"waiting for an agent in {self.place.name}")
        return carrier


class Base(Answering):
    """Acts on one VM."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.engine = engine
