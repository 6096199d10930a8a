"""Counters of a control group, in both layouts (cgroup-v1 and cgroup-v2 of the kernel's
Documentation/admin-guide)."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from pyvirt.guest.traffic import Traffic


@frozen
class Pressure:
    """Shares of the last 10, 60 and 300 s in which some (or all) tasks waited, in per cent;
    `total` seconds in all."""

    some: tuple[float, float, float]
    full: tuple[float, float, float] | None
    total: float


@frozen
class Stats:
    """What a container uses now. CPU times in seconds, everything else in bytes or as counts;
    None where this kernel does not count it. `memory_limit` is None without a limit.

    `pressure` has "cpu", "memory" and "io" where the kernel tells (cgroup v2 only).
    `network` is as the container's interfaces count: received is what came in.
    """

    cpu: float | None = None
    cpu_user: float | None = None
    cpu_system: float | None = None
    throttled: float | None = None
    memory: int | None = None
    memory_peak: int | None = None
    memory_limit: int | None = None
    swap: int | None = None
    pids: int | None = None
    pids_limit: int | None = None
    read: int | None = None
    written: int | None = None
    network: Mapping[str, Traffic] = field(factory=dict, hash=False)
    pressure: Mapping[str, Pressure] = field(factory=dict, hash=False)


def number(text: str | None) -> int | None:
    """The number in a file; None for a missing file, and for "max"."""
    words = (text or "").split()
    return int(words[0]) if words and words[0].lstrip("-").isdigit() else None


def table(text: str | None) -> dict[str, int]:
    """The counters of a flat keyed file, such as ``cpu.stat``."""
    pairs = (line.split() for line in (text or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def moved_v1(text: str | None, word: str) -> int | None:
    """Bytes of all devices in ``blkio.throttle.io_service_bytes``; `word` is Read or Write."""
    if text is None:
        return None
    rows = (line.split() for line in text.splitlines())
    return sum(int(row[2]) for row in rows if len(row) == 3 and row[1] == word)


def moved_v2(text: str | None, word: str) -> int | None:
    """Bytes of all devices in ``io.stat``; `word` is rbytes or wbytes."""
    if text is None:
        return None
    pairs = (pair.partition("=") for line in text.splitlines() for pair in line.split()[1:])
    return sum(int(value) for key, _, value in pairs if key == word)


def pressure(text: str) -> Pressure | None:
    """The text of ``memory.pressure`` and its kin; None where it is empty."""
    rows: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        rows[kind] = {k: float(v) for k, _, v in (pair.partition("=") for pair in pairs)}
    some = rows.get("some")
    if some is None:
        return None
    full = _shares(rows["full"]) if "full" in rows else None
    return Pressure(_shares(some), full, some.get("total", 0.0) / 1e6)


def _shares(row: Mapping[str, float]) -> tuple[float, float, float]:
    return (row.get("avg10", 0.0), row.get("avg60", 0.0), row.get("avg300", 0.0))
