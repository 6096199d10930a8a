"""What a ring breaks of the specification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyvirt.virtio.state import Breach, RingState


def breaches(memory: Any, layout: Any, state: RingState | None) -> Iterator[Breach]:
    yield from ()
