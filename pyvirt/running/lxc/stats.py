"""What a container uses, read from its control groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyvirt.container.stats import (
    Pressure,
    Stats,
    moved_v1,
    moved_v2,
    number,
    pressure,
    table,
)
from pyvirt.guest.traffic import Traffic, traffic
from pyvirt.running.host.usage import ticks
from pyvirt.running.lxc.groups import Groups


def stats(groups: Groups, pid: int) -> Stats:
    """The counters of the groups, and of the network of process `pid`."""
    facts: dict[str, Any] = {}
    for part in (_cpu, _memory, _io, _pids):
        facts.update(part(groups))
    return Stats(**facts, network=_network(pid), pressure=dict(_pressure(groups)))


def _cpu(groups: Groups) -> dict[str, Any]:
    if groups.layout.version("cpuacct") == 1:
        used = number(groups.read("cpuacct", "cpuacct.usage"))
        parts = table(groups.read("cpuacct", "cpuacct.stat"))
        held = table(groups.read("cpu", "cpu.stat")).get("throttled_time")
        return {
            "cpu": _seconds(used, 1e9),
            "cpu_user": _seconds(parts.get("user"), ticks()),
            "cpu_system": _seconds(parts.get("system"), ticks()),
            "throttled": _seconds(held, 1e9),
        }
    found = table(groups.read("cpu", "cpu.stat"))
    names = {"cpu": "usage_usec", "cpu_user": "user_usec", "cpu_system": "system_usec",
             "throttled": "throttled_usec"}  # fmt: skip
    return {name: _seconds(found.get(key), 1e6) for name, key in names.items()}


def _memory(groups: Groups) -> dict[str, Any]:
    def read(name: str) -> int | None:
        return number(groups.read("memory", name))

    if groups.layout.version("memory") == 1:
        limit, both = read("memory.limit_in_bytes"), read("memory.memsw.usage_in_bytes")
        used = read("memory.usage_in_bytes")
        swap = None if both is None or used is None else max(0, both - used)
        unlimited = limit is None or limit >= 1 << 62
        peak = read("memory.max_usage_in_bytes")
    else:
        used, limit, peak = read("memory.current"), read("memory.max"), read("memory.peak")
        swap, unlimited = read("memory.swap.current"), limit is None
    facts = {"memory": used, "memory_peak": peak, "swap": swap}
    return {**facts, "memory_limit": None if unlimited else limit}


def _io(groups: Groups) -> dict[str, Any]:
    if groups.layout.version("blkio") == 1:
        text = groups.read("blkio", "blkio.throttle.io_service_bytes")
        return {"read": moved_v1(text, "Read"), "written": moved_v1(text, "Write")}
    text = groups.read("blkio", "io.stat")
    return {"read": moved_v2(text, "rbytes"), "written": moved_v2(text, "wbytes")}


def _pids(groups: Groups) -> dict[str, Any]:
    now, most = (number(groups.read("pids", name)) for name in ("pids.current", "pids.max"))
    return {"pids": now, "pids_limit": most}


def _network(pid: int) -> dict[str, Traffic]:
    with suppress(OSError):
        return traffic(Path(f"/proc/{pid}/net/dev").read_text())
    return {}


def _pressure(groups: Groups) -> Iterator[tuple[str, Pressure]]:
    for kind in ("cpu", "memory", "io"):
        found = pressure(groups.read(kind, f"{kind}.pressure") or "")
        if found is not None:
            yield kind, found


def _seconds(value: int | None, unit: float) -> float | None:
    return None if value is None else value / unit
