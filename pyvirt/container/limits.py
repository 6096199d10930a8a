"""What a container may use, and the cgroup settings of it in both layouts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.lxc.cgroup import Setting

#: Microseconds in which a quota counts: the kernel's default period.
PERIOD = 100_000

_DEVICE = re.compile(r"\d+:\d+")
_SET = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def _positive_number(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0.01:
        raise SpecError(field.name, "must be a number of CPUs, at least 0.01", value)


def _is_set(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not _SET.fullmatch(value):
        raise SpecError(field.name, "must be a set of numbers such as '0-2,7'", value)


def _not_negative(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SpecError(field.name, "must be 0 or more", value)


def _to_set(value: Any) -> Any:
    """Numbers as the kernel writes them: {0, 1, 5} gives "0,1,5"."""
    if isinstance(value, set | frozenset | list | tuple | range):
        return ",".join(map(str, sorted(value)))
    return value


def _size() -> Any:
    return field(
        default=None,
        kw_only=True,
        converter=fields.to_size,
        validator=fields.optional(fields.positive),
    )


@frozen
class Throttle:
    """Limits of one block device of the host, `device` as its numbers ("8:0"), per second.

    Bytes (`read`, `write`) and operations (`read_ops`, `write_ops`).
    """

    device: str = field()
    read: int | None = _size()
    write: int | None = _size()
    read_ops: int | None = _size()
    write_ops: int | None = _size()

    @device.validator
    def _numbers(self, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, str) or not _DEVICE.fullmatch(value):
            raise SpecError(field.name, "must be the numbers of a device such as '8:0'", value)

    def given(self) -> Iterator[tuple[str, str, int]]:
        """For each limit its file in v1, its word in v2, and the number."""
        names = (
            ("read_bps", "rbps", self.read),
            ("write_bps", "wbps", self.write),
            ("read_iops", "riops", self.read_ops),
            ("write_iops", "wiops", self.write_ops),
        )
        for old, new, value in names:
            if value is not None:
                yield f"blkio.throttle.{old}_device", new, value


@frozen(kw_only=True)
class Limits:
    """What a container may use; None leaves it as it is.

    `memory`: bytes, or text such as "512M"; `swap`: bytes of swap on top of that, 0 for
    none. `cpus`: how many CPUs' time it may take (0.5 is half of one); `cpu_shares`: its
    share beside others when all are busy, 1024 is usual (cgroup v1's measure); `cpu_quota`:
    microseconds of CPU in each 100 ms, instead of `cpus`; `cpu_set` and `memory_nodes`: the
    host's CPUs and NUMA nodes it may use ("0-2,7"). `pids`: tasks. `io_weight`: its share
    of disks, 10 to 1000, 100 is usual; `io`: limits of single disks.
    """

    memory: int | None = field(
        default=None, converter=fields.to_size, validator=fields.optional(fields.positive)
    )
    swap: int | None = field(
        default=None, converter=fields.to_size, validator=fields.optional(_not_negative)
    )
    cpus: float | None = field(default=None, validator=fields.optional(_positive_number))
    cpu_shares: int | None = field(
        default=None, validator=fields.optional(fields.between(2, 262144))
    )
    cpu_quota: int | None = field(
        default=None, validator=fields.optional(fields.between(1000, 1 << 40))
    )
    cpu_set: str | None = field(default=None, converter=_to_set, validator=fields.optional(_is_set))
    memory_nodes: str | None = field(
        default=None, converter=_to_set, validator=fields.optional(_is_set)
    )
    pids: int | None = field(default=None, validator=fields.optional(fields.between(1, 1 << 22)))
    io_weight: int | None = field(default=None, validator=fields.optional(fields.between(10, 1000)))
    io: tuple[Throttle, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.kind(Throttle))
    )

    def __attrs_post_init__(self) -> None:
        if self.cpus is not None and self.cpu_quota is not None:
            raise SpecError("cpu_quota", "must not be given together with cpus", self.cpu_quota)
        if self.swap is not None and self.memory is None:
            raise SpecError("swap", "needs memory to be given", self.swap)

    def settings(self) -> Iterator[Setting]:
        """The cgroup files that say so, in an order in which the kernel takes them."""
        for name, make in _SETTINGS.items():
            value = getattr(self, name)
            if value is not None:
                yield make(self, value)
        for number, throttle in enumerate(self.io):
            yield from _throttles(throttle, f"io[{number}]")


def limits_of(self: Limits) -> dict[str, Any]:
    """The limits that are given, by name."""
    names = (field.name for field in attrs.fields(Limits))
    return {name: value for name in names if (value := getattr(self, name)) not in (None, ())}


def lifted(names: Iterable[str], before: Limits) -> Iterator[Setting]:
    """What takes the limits `names` off, which are as `before` says, in an order that v1
    takes: memory and swap together never fall below memory alone."""
    for name in sorted(names, key=lambda name: name != "swap"):
        if name in _LIFTED:
            controller, v1, v2 = _LIFTED[name]
            yield Setting(controller, (v1,), (v2,), name)
    for throttle in before.io if "io" in names else ():
        for old, new, _ in throttle.given():
            v2 = ("io.max", f"{throttle.device} {new}=max")
            yield Setting("blkio", ((old, f"{throttle.device} 0"),), (v2,), "io")


def _memory(self: Limits, value: int) -> Setting:
    text = str(value)
    return Setting("memory", (("memory.limit_in_bytes", text),), (("memory.max", text),), "memory")


def _swap(self: Limits, value: int) -> Setting:
    both = str((self.memory or 0) + value)
    old = (("memory.memsw.limit_in_bytes", both),)
    return Setting("memory", old, (("memory.swap.max", str(value)),), "swap")


def _cpus(self: Limits, value: float) -> Setting:
    return _bandwidth(int(value * PERIOD), "cpus")


def _quota(self: Limits, value: int) -> Setting:
    return _bandwidth(value, "cpu_quota")


def _bandwidth(quota: int, source: str) -> Setting:
    quota = max(quota, 1000)  # the kernel takes no less
    old = (("cpu.cfs_period_us", str(PERIOD)), ("cpu.cfs_quota_us", str(quota)))
    return Setting("cpu", old, (("cpu.max", f"{quota} {PERIOD}"),), source)


def _shares(self: Limits, value: int) -> Setting:
    # The mapping of systemd and runc: 2..262144 onto 1..10000.
    weight = 1 + ((value - 2) * 9999) // 262142
    new = (("cpu.weight", str(weight)),)
    return Setting("cpu", (("cpu.shares", str(value)),), new, "cpu_shares")


def _cpu_set(self: Limits, value: str) -> Setting:
    files = (("cpuset.cpus", value),)
    return Setting("cpuset", files, files, "cpu_set")


def _nodes(self: Limits, value: str) -> Setting:
    files = (("cpuset.mems", value),)
    return Setting("cpuset", files, files, "memory_nodes")


def _pids(self: Limits, value: int) -> Setting:
    files = (("pids.max", str(value)),)
    return Setting("pids", files, files, "pids")


def _weight(self: Limits, value: int) -> Setting:
    old, new = (("blkio.weight", str(value)),), (("io.weight", f"default {value}"),)
    return Setting("blkio", old, new, "io_weight")


def _throttles(throttle: Throttle, source: str) -> Iterator[Setting]:
    for old, new, value in throttle.given():
        v1 = ((old, f"{throttle.device} {value}"),)
        yield Setting("blkio", v1, (("io.max", f"{throttle.device} {new}={value}"),), source)


#: Stands for what the group above has.
ABOVE = "<above>"

_NO_QUOTA = ("cpu", ("cpu.cfs_quota_us", "-1"), ("cpu.max", f"max {PERIOD}"))

#: Limit → its controller, and what to write in v1 and v2 to be without it.
_LIFTED = {
    "swap": ("memory", ("memory.memsw.limit_in_bytes", "-1"), ("memory.swap.max", "max")),
    "memory": ("memory", ("memory.limit_in_bytes", "-1"), ("memory.max", "max")),
    "cpus": _NO_QUOTA,
    "cpu_quota": _NO_QUOTA,
    "cpu_shares": ("cpu", ("cpu.shares", "1024"), ("cpu.weight", "100")),
    "cpu_set": ("cpuset", ("cpuset.cpus", ABOVE), ("cpuset.cpus", ABOVE)),
    "memory_nodes": ("cpuset", ("cpuset.mems", ABOVE), ("cpuset.mems", ABOVE)),
    "pids": ("pids", ("pids.max", "max"), ("pids.max", "max")),
    "io_weight": ("blkio", ("blkio.weight", "100"), ("io.weight", "default 100")),
}

_SETTINGS: dict[str, Callable[[Limits, Any], Setting]] = {
    "memory": _memory,
    "swap": _swap,
    "cpus": _cpus,
    "cpu_quota": _quota,
    "cpu_shares": _shares,
    "cpu_set": _cpu_set,
    "memory_nodes": _nodes,
    "pids": _pids,
    "io_weight": _weight,
}
