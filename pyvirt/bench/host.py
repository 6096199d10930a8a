"""The host while something is measured: was it quiet, and what is it."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from attrs import frozen

#: More than so many processors' time used by others, or taken by a hypervisor, is noise.
FOREIGN, STOLEN = 0.25, 0.05
#: Less than this share of the clock rate of before is another machine.
SLOWED = 0.9

# The columns of "cpu" in /proc/stat (proc_stat(5)); guest time is within user time. Whom the
# kernel serves in interrupts nobody knows: for a tap it is the benchmark.
_COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@frozen
class Snapshot:
    """Counters of the host at one moment, in seconds; `own` is what the benchmark has used."""

    time: float
    used: float
    stolen: float
    own: float
    load: float
    frequency: float | None


@frozen
class Condition:
    """What the host did meanwhile.

    `foreign` and `stolen` are processors' worth of time: used by others, and taken by a
    hypervisor below. `load` is the load average at the end, `frequency` in Hz.
    """

    foreign: float
    stolen: float
    load: float
    frequency: float | None
    slowed: bool

    @property
    def busy(self) -> bool:
        """Whether figures taken meanwhile are marked."""
        return self.foreign > FOREIGN or self.stolen > STOLEN or self.slowed


def snapshot(pids: Iterable[int]) -> Snapshot:
    """The host now; `pids` are the processes of the benchmark beside this one."""
    ticks = os.sysconf("SC_CLK_TCK")
    stat = Path("/proc/stat").read_text().splitlines()[0]
    columns = dict(zip(_COLUMNS, map(int, stat.split()[1:9]), strict=True))
    used = columns["user"] + columns["nice"] + columns["system"]
    own = sum(_seconds(pid, ticks) for pid in {os.getpid(), *pids})
    return Snapshot(
        time.monotonic(),
        used / ticks,
        columns["steal"] / ticks,
        own,
        os.getloadavg()[0],
        _frequency(Path("/proc/cpuinfo").read_text(errors="replace")),
    )


def between(before: Snapshot, after: Snapshot) -> Condition:
    """What the host did from one moment to another."""
    seconds = max(after.time - before.time, 1e-3)
    slowed = bool(
        before.frequency and after.frequency and after.frequency < SLOWED * before.frequency
    )
    return Condition(
        foreign=max((after.used - before.used - (after.own - before.own)) / seconds, 0.0),
        stolen=max((after.stolen - before.stolen) / seconds, 0.0),
        load=after.load,
        frequency=after.frequency,
        slowed=slowed,
    )


def _seconds(pid: int, ticks: int) -> float:
    """The processor time of a process and of its children that have ended."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return sum(map(int, stat[stat.rindex(")") + 1 :].split()[11:15])) / ticks
    return 0.0


def _frequency(cpuinfo: str) -> float | None:
    rates = [float(rate) for rate in re.findall(r"^cpu MHz\s*: ([\d.]+)", cpuinfo, re.MULTILINE)]
    return 1e6 * sum(rates) / len(rates) if rates else None


def facts() -> dict[str, object]:
    """What the host is, for the results."""
    cpuinfo = Path("/proc/cpuinfo").read_text(errors="replace")
    model = re.search(r"^model name\s*: (.+)$", cpuinfo, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "frequency": _frequency(cpuinfo),
    }
