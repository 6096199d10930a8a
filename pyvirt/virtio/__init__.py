"""Virtio as bytes: guest memory, rings, requests and traces. Nothing here touches a guest."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvirt.virtio.builder import RingBuilder as RingBuilder
    from pyvirt.virtio.captured import Captured as Captured
    from pyvirt.virtio.layout import RingLayout as RingLayout
    from pyvirt.virtio.memory import GuestMemory as GuestMemory
    from pyvirt.virtio.records import Lost as Lost
    from pyvirt.virtio.records import TracedQueue as TracedQueue
    from pyvirt.virtio.requests import BalloonRequest as BalloonRequest
    from pyvirt.virtio.requests import BlkRequest as BlkRequest
    from pyvirt.virtio.requests import ConsoleData as ConsoleData
    from pyvirt.virtio.requests import ControlRequest as ControlRequest
    from pyvirt.virtio.requests import NetFrame as NetFrame
    from pyvirt.virtio.requests import Request as Request
    from pyvirt.virtio.requests import RngRequest as RngRequest
    from pyvirt.virtio.requests import ScsiRequest as ScsiRequest
    from pyvirt.virtio.requests import UnknownRequest as UnknownRequest
    from pyvirt.virtio.requests import decode as decode
    from pyvirt.virtio.ring import Ring as Ring
    from pyvirt.virtio.ring import Sampler as Sampler
    from pyvirt.virtio.rings import Rings as Rings
    from pyvirt.virtio.state import Breach as Breach
    from pyvirt.virtio.state import Chain as Chain
    from pyvirt.virtio.state import RingState as RingState
    from pyvirt.virtio.statistics import Distribution as Distribution
    from pyvirt.virtio.statistics import QueueStatistics as QueueStatistics
    from pyvirt.virtio.statistics import Statistics as Statistics
    from pyvirt.virtio.trace import Trace as Trace

_HOMES = {
    "builder": "RingBuilder",
    "captured": "Captured",
    "layout": "RingLayout",
    "memory": "GuestMemory",
    "records": "Lost TracedQueue",
    "requests": "BalloonRequest BlkRequest ConsoleData ControlRequest NetFrame Request RngRequest "
    "ScsiRequest UnknownRequest decode",
    "ring": "Ring Sampler",
    "rings": "Rings",
    "state": "Breach Chain RingState",
    "statistics": "Distribution QueueStatistics Statistics",
    "trace": "Trace",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
