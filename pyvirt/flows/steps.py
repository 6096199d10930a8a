"""What a flow with a VM may ask for, beyond QMP's own steps."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

from attrs import frozen

from pyvirt.qemu.need import Need


@frozen
class Acquire:
    """Acquire `need` while the VM runs. The result has its `values` and its `fds` for QEMU."""

    need: Need


@frozen
class Handed:
    """QEMU has the descriptors that were acquired as `need`: close this process's copies."""

    need: str


@frozen
class Release:
    """Give back what was acquired under the need's name `need`."""

    need: str


@frozen
class Ended:
    """Wait until QEMU ended; the result is how. `TimedOut` is thrown in after `timeout` seconds."""

    timeout: float | None = None


@frozen
class Kill:
    """End QEMU's process at once."""


@frozen
class Within:
    """Wait for `future`, at most `seconds`; then it is cancelled and `TimedOut` thrown in.

    `what` names it in the error.
    """

    future: Future[Any]
    seconds: float | None
    what: str


T = TypeVar("T")

#: A flow with a VM: yields QMP's steps, these, and futures.
Act: TypeAlias = Generator[Any, Any, T]


def outcome(future: Future[T]) -> Act[T]:
    """Wait for `future`; its result."""
    value: T = yield future
    return value
