"""Disk workloads: jobs of fio as values, and what fio reports of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.bench.figure import Figure, known
from pyvirt.errors import GuestError, SpecError
from pyvirt.fields import frozen

#: fio's words for what is done; ``rw`` is mixed.
PATTERNS = ("read", "write", "rw", "randread", "randwrite", "randrw")
ENGINES = ("libaio", "io_uring", "psync", "sync", "pvsync2", "posixaio", "mmap")

PERCENTILES = ("50", "95", "99", "99.9")

_OWN_FILE = re.compile(r"^\s*(filename|directory)\s*=(?!\s*\$\{DEVICE\}\s*$)", re.MULTILINE)


def _pattern(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    known(attribute.name, value, PATTERNS)


def _engine(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    known(attribute.name, value, ENGINES)


def _not_negative(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise SpecError(attribute.name, "must not be negative", value)


def _to_job(value: str | Path | None) -> str | None:
    return value.read_text() if isinstance(value, Path) else value


@frozen(kw_only=True)
class Fio:
    """Direct I/O on the whole raw disk, as fio does it for `runtime` seconds.

    `rw` is fio's word for the pattern, `mix` the percentage of reads when it is mixed; `bs`
    is the bytes of each request, `iodepth` how many are in flight, `numjobs` how many
    processes do so. `size` bounds the part of the disk that is used; 0 is all of it.
    `ramp` seconds are run before anything counts. `job` is a job file of the user's own
    (its text, or a Path), which gets the disk as its filename, or as ``${DEVICE}``; the
    other fields but `name` are then unused.
    """

    rw: str = field(default="write", validator=_pattern)
    bs: int = field(default=4096, converter=fields.to_size, validator=fields.between(512, 1 << 26))
    iodepth: int = field(default=1, validator=fields.between(1, 4096))
    ioengine: str = field(default="libaio", validator=_engine)
    numjobs: int = field(default=1, validator=fields.between(1, 256))
    mix: int = field(default=50, validator=fields.between(0, 100))
    size: int = field(default=0, converter=fields.to_size, validator=fields.between(0, 2**63 - 1))
    runtime: float = field(default=1.0, validator=fields.positive)
    ramp: float = field(default=0.2, validator=_not_negative)
    job: str | None = field(
        default=None, converter=_to_job, validator=fields.optional(fields.text), repr=False
    )
    name: str = field(default="", validator=fields.text)

    def __attrs_post_init__(self) -> None:
        if self.bs % 512:
            raise SpecError("bs", "must be a multiple of 512, as direct I/O needs", self.bs)
        if self.job is not None and (found := _OWN_FILE.search(self.job)):
            reason = "must leave the file to the benchmark (or name it ${DEVICE})"
            raise SpecError("job", reason, found[0].strip())

    @property
    def label(self) -> str:
        """A short name: "write-1M-x4" is 4 sequential writes of 1 MiB in flight."""
        if self.name or self.job is not None:
            return self.name or "job"
        jobs = f"-j{self.numjobs}" if self.numjobs > 1 else ""
        mix = f"{self.mix}" if self.rw in ("rw", "randrw") else ""
        return f"{self.rw}{mix}-{fields.sized(self.bs)}-x{self.iodepth}{jobs}"

    @property
    def seconds(self) -> float:
        """How long fio works, as far as the job tells."""
        if self.job is None:
            return self.ramp + self.runtime
        return sum(float(found) for found in re.findall(r"^runtime=(\d+)", self.job, re.M)) or 10.0

    @property
    def countable(self) -> bool:
        """Whether it can be run for an exact number of requests."""
        return self.job is None and self.numjobs == 1

    def text(self, device: str) -> str:
        """The job file for the disk `device`."""
        if self.job is not None:
            head = f"[global]\nfilename={device}\ngroup_reporting=1\n"
            return head + self.job.replace("${DEVICE}", device)
        times = {"runtime": _time(self.runtime), "ramp_time": _time(self.ramp)}
        return self._job(device, time_based=1, **times)

    def counted(self, device: str, requests: int) -> str:
        """The job file that sends exactly so many requests."""
        return self._job(device, number_ios=requests)

    def _job(self, device: str, **how: Any) -> str:
        options = {
            "filename": device,
            "rw": self.rw,
            "bs": self.bs,
            "iodepth": self.iodepth,
            "ioengine": self.ioengine,
            "numjobs": self.numjobs,
            "direct": 1,
            "group_reporting": 1,
            "percentile_list": ":".join(PERCENTILES),
            "lat_percentiles": 1,
            "clat_percentiles": 0,
            **({"rwmixread": self.mix} if self.rw in ("rw", "randrw") else {}),
            **({"size": self.size} if self.size else {}),
            **how,
        }
        return "[job]\n" + "".join(f"{key}={value}\n" for key, value in options.items())


def _time(seconds: float) -> str:
    """fio takes whole numbers of whichever unit."""
    return f"{round(seconds * 1000)}ms"


def figures(report: Mapping[str, Any]) -> Iterator[Figure]:
    """What fio's JSON says: of each job by its name when there are several.

    `GuestError` when a job failed or did nothing.
    """
    jobs = report.get("jobs") or []
    for job in jobs:
        if job.get("error"):
            raise GuestError(f"fio's job {job.get('jobname')}", "an I/O error", job["error"])
        suffix = f" {job['jobname']}" if len(jobs) > 1 else ""
        yield from _job_figures(job, suffix)


def _job_figures(job: Mapping[str, Any], suffix: str) -> Iterator[Figure]:
    sides = {side: job[side] for side in ("read", "write", "trim") if job[side]["total_ios"]}
    if not sides:
        raise GuestError(f"fio's job {job.get('jobname')}", "it did no I/O")
    yield Figure(f"throughput{suffix}", sum(s["bw_bytes"] for s in sides.values()), "B/s")
    yield Figure(f"iops{suffix}", sum(s["iops"] for s in sides.values()), "1/s")
    for side, said in sides.items():
        which = f"{suffix} {side}" if len(sides) > 1 else suffix
        if len(sides) > 1:
            yield Figure(f"throughput{which}", said["bw_bytes"], "B/s")
        yield from _latencies(said, which)


def _latencies(side: Mapping[str, Any], suffix: str) -> Iterator[Figure]:
    """From submission to completion; in a user's job perhaps without the submission."""
    latency = side["lat_ns"] if side["lat_ns"].get("percentile") else side["clat_ns"]
    yield Figure(f"latency-mean{suffix}", side["lat_ns"]["mean"] / 1e9, "s")
    for percentile, value in latency.get("percentile", {}).items():
        if (name := f"{float(percentile):g}") in PERCENTILES:
            yield Figure(f"latency-p{name}{suffix}", value / 1e9, "s")


def transferred(report: Mapping[str, Any]) -> int:
    """The bytes that all jobs moved."""
    return sum(job[side]["io_bytes"] for job in report["jobs"] for side in ("read", "write"))
