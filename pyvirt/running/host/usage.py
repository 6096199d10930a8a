"""What a process uses, as the kernel counts it in /proc."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from attrs import frozen


@frozen
class Usage:
    """CPU time in seconds and memory in bytes.

    `resident` is `anonymous` (its own), `shared` (memfd and /dev/shm, where shared guest
    memory is) and `files` (programs, libraries, mapped images) together; `peak` is the
    largest it has been.
    """

    user: float
    system: float
    threads: int
    resident: int
    peak: int
    anonymous: int
    shared: int
    files: int


def usage(pid: int) -> Usage:
    """What process *pid* uses now; ProcessLookupError when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    return parse_usage(stat, status, ticks())


def parse_usage(stat: str, status: str, ticks: int) -> Usage:
    """The usage in the text of `/proc/PID/stat` and `/proc/PID/status` (proc(5)).

    A zombie has no memory lines any more: it uses none.
    """
    # The name in field 2 may hold spaces and parentheses, so count from its end.
    fields = stat[stat.rindex(")") + 1 :].split()
    lines = (line.partition(":") for line in status.splitlines())
    values = {name: value.split() for name, _, value in lines}

    def size(name: str) -> int:
        return int(values[name][0]) * 1024 if name in values else 0

    return Usage(
        user=int(fields[11]) / ticks,
        system=int(fields[12]) / ticks,
        threads=int(values["Threads"][0]),
        resident=size("VmRSS"),
        peak=size("VmHWM"),
        anonymous=size("RssAnon"),
        shared=size("RssShmem"),
        files=size("RssFile"),
    )


@cache
def ticks() -> int:
    """How many of the kernel's clock ticks make a second."""
    return os.sysconf("SC_CLK_TCK")
