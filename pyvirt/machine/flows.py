"""Processors and memory of a running guest: conversations that add and resize.

Memory modules are parts, and are plugged like every other; they all are unplugged so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pyvirt.errors import PyvirtError, SpecError, TimedOut
from pyvirt.qmp.flow import Command, Flow, Until

# Where a vCPU is, in the order in which people count.
_PLACE = ("node-id", "socket-id", "die-id", "core-id", "thread-id")


#: Where QEMU keeps what was plugged under an id; the first vCPUs have none.
_PLUGGED = "/machine/peripheral/"


def plug_cpus(count: int) -> Flow[list[str]]:
    """Plug `count` more vCPUs; their ids. All of them, or none and the error.

    The guest's kernel may still have to bring them online.
    """
    free = [slot for slot in (yield Command("query-hotpluggable-cpus")) if "qom-path" not in slot]
    if count > len(free):
        raise SpecError("count", f"must be at most {len(free)}, the vCPUs not yet plugged", count)
    plugged: list[str] = []
    try:
        for slot in sorted(free, key=_order)[:count]:
            id = cpu_id(slot["props"])
            yield Command("device_add", {"driver": slot["type"], "id": id, **slot["props"]})
            plugged.append(id)
    except PyvirtError:
        # A guest that runs must agree to let go, which is not waited for here.
        for id in plugged:
            yield Command("device_del", {"id": id})
        raise
    return plugged


def plugged_cpus(count: int) -> Flow[list[str]]:
    """The ids of the `count` vCPUs that were plugged last."""
    slots = yield Command("query-hotpluggable-cpus")
    ids = [slot["qom-path"].removeprefix(_PLUGGED) for slot in slots
           if slot.get("qom-path", "").startswith(_PLUGGED)]  # fmt: skip
    if count > len(ids):
        raise SpecError("count", f"must be at most {len(ids)}, the vCPUs that were plugged", count)
    places = {cpu_id(slot["props"]): _order(slot) for slot in slots}
    return sorted(ids, key=lambda id: places.get(id, ()), reverse=True)[:count]


def cpu_id(place: Mapping[str, int]) -> str:
    """The id given to the vCPU at `place`: ``cpu-0-0-1`` for a socket, core and thread."""
    return "cpu-" + "-".join(str(place[name]) for name in _PLACE if name in place)


def _order(slot: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(slot["props"].get(name, 0)) for name in _PLACE)


def resize_virtio_mem(id: str, size: int, timeout: float | None = 10) -> Flow[int]:
    """Ask the guest to hold `size` bytes of virtio-mem device `id`; what it holds at the end.

    Raises `TimedOut` with how far it came.
    """
    path = {"path": f"/machine/peripheral/{id}"}
    yield Command("qom-set", {**path, "property": "requested-size", "value": size})
    while (held := (yield Command("qom-get", {**path, "property": "size"}))) != size:
        try:
            # The event is throttled to one a second, so its figure may be old.
            yield Until("MEMORY_DEVICE_SIZE_CHANGE", {"id": id}, timeout=timeout)
        except TimedOut as error:
            what = f"resizing {id} to {size} bytes"
            raise TimedOut(what, error.seconds, f"the guest holds {held}") from None
    return size


def present_cpus(hotpluggable: Iterable[Mapping[str, Any]]) -> int:
    """How many vCPUs are there, by the answer of ``query-hotpluggable-cpus``."""
    return sum(int(slot["vcpus-count"]) for slot in hotpluggable if "qom-path" in slot)
