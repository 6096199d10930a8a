"""The processors of a guest, and the threads that serve its disks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

from attrs import field

from pyvirt.errors import SpecError
from pyvirt.fields import between, frozen, name, optional, positive, text, to_tuple
from pyvirt.qemu.option import Option

# What -cpu means when nothing else is said; flags need a model in front of them.
_DEFAULT_MODEL = "qemu64"

_LEVELS = ("sockets", "dies", "cores", "threads")


def _pins(value: Any) -> dict[int, tuple[int, ...]]:
    if not isinstance(value, Mapping):
        raise SpecError("pins", "must map vCPUs to host CPUs", value)
    return {cpu: _host_cpus(host) for cpu, host in value.items()}


def _host_cpus(value: int | Iterable[int]) -> tuple[int, ...]:
    cpus = (value,) if isinstance(value, int) else tuple(sorted(set(value)))
    if not cpus or any(not isinstance(cpu, int) or cpu < 0 for cpu in cpus):
        raise SpecError("pins", "must name at least one host CPU", value)
    return cpus


def _maybe_pinned(value: int | Iterable[int]) -> tuple[int, ...]:
    return () if value == () else _host_cpus(value)


@frozen
class CPU:
    """`count` vCPUs of a `model`, arranged in sockets, dies, cores and threads.

    `flags` are features with a sign: "+avx2", "-hle" (no sign means +). `properties` sets
    any other property of the model ("host-phys-bits", "hv-time", "phys-bits"). `maximum`
    leaves room to plug more. What is None of the arrangement is worked out by QEMU.
    `pins` maps vCPUs to the host CPUs they may run on.
    """

    count: int = field(default=1, validator=between(1, 4096))
    model: str | None = field(default=None, validator=optional(text))
    flags: tuple[str, ...] = field(default=(), converter=to_tuple, kw_only=True)
    sockets: int | None = field(default=None, validator=optional(positive), kw_only=True)
    dies: int | None = field(default=None, validator=optional(positive), kw_only=True)
    cores: int | None = field(default=None, validator=optional(positive), kw_only=True)
    threads: int | None = field(default=None, validator=optional(positive), kw_only=True)
    maximum: int | None = field(default=None, validator=optional(positive), kw_only=True)
    properties: Mapping[str, Any] = field(factory=dict, kw_only=True)
    pins: Mapping[int, tuple[int, ...]] = field(factory=dict, converter=_pins, kw_only=True)

    def __attrs_post_init__(self) -> None:
        self._check_model()
        self._check_topology()
        for cpu in self.pins:
            if not 0 <= cpu < self.most:
                raise SpecError("pins", f"must name vCPUs below {self.most}", cpu)

    @property
    def most(self) -> int:
        """How many vCPUs there can be once all are plugged."""
        return self.maximum or self.count

    @property
    def features(self) -> dict[str, bool]:
        """The flags: feature → on or off."""
        return {flag.lstrip("+-"): not flag.startswith("-") for flag in self.flags}

    def options(self) -> Iterator[Option]:
        """``-cpu`` when anything differs from QEMU's default, and ``-smp``."""
        more = {**self.features, **self.properties}
        if self.model is not None or more:
            yield Option("cpu", {"model": self.model or _DEFAULT_MODEL, **more}, source="model")
        levels = {level: getattr(self, level) for level in _LEVELS}
        topology = {"cpus": self.count, "maxcpus": self.maximum, **levels}
        given = {key: value for key, value in topology.items() if value is not None}
        yield Option("smp", given, source="count")

    def _check_model(self) -> None:
        for flag in self.flags:
            if not isinstance(flag, str) or not flag.lstrip("+-") or set(flag) & set(",= "):
                raise SpecError("flags", "must be features such as '+avx2'", flag)
        # QEMU splits -cpu at every comma and knows no way to write one.
        if self.model is not None and (not self.model or set(self.model) & set(",=")):
            raise SpecError("model", "must be the name of a CPU model", self.model)
        for key, value in self.properties.items():
            if "," in f"{key}{value}" or "\0" in f"{key}{value}":
                raise SpecError(f"properties[{key!r}]", "must hold no comma or NUL", value)

    def _check_topology(self) -> None:
        if self.most < self.count:
            raise SpecError("maximum", f"must be at least count, {self.count}", self.maximum)
        levels = [getattr(self, level) for level in _LEVELS]
        given = prod(level for level in levels if level is not None)
        # Dies default to 1, so sockets, cores and threads decide whether any is left open.
        complete = None not in (self.sockets, self.cores, self.threads)
        if self.most % given or (complete and given != self.most):
            reason = f"x dies x cores x threads must give {self.most}"
            raise SpecError("sockets", reason, tuple(levels))


@frozen
class IOThread:
    """A thread of QEMU's that serves what names it (``Disk(iothread=...)``).

    `poll_max_ns` is how long it polls before it sleeps, `poll_grow` and `poll_shrink` how
    that adapts; `aio_max_batch` limits a submission, `thread_pool_min` and
    `thread_pool_max` its helper threads. `pins` are the host CPUs it may run on.
    """

    id: str = field(validator=name)
    poll_max_ns: int | None = field(default=None, validator=optional(between(0, 1 << 62)))
    poll_grow: int | None = field(default=None, validator=optional(between(0, 1 << 62)))
    poll_shrink: int | None = field(default=None, validator=optional(between(0, 1 << 62)))
    aio_max_batch: int | None = field(default=None, validator=optional(between(0, 1 << 62)))
    thread_pool_min: int | None = field(default=None, validator=optional(between(0, 1 << 30)))
    thread_pool_max: int | None = field(default=None, validator=optional(between(1, 1 << 30)))
    pins: tuple[int, ...] = field(default=(), converter=_maybe_pinned)

    def __attrs_post_init__(self) -> None:
        low, high = self.thread_pool_min, self.thread_pool_max
        if low is not None and high is not None and low > high:
            raise SpecError("thread_pool_min", "must be at most thread_pool_max", low)

    def options(self) -> Iterator[Option]:
        """The ``iothread`` object."""
        chosen = {key.replace("_", "-"): getattr(self, key) for key in _THREAD_PROPERTIES}
        given = {key: value for key, value in chosen.items() if value is not None}
        yield Option("object", {"qom-type": "iothread", "id": self.id, **given})


_THREAD_PROPERTIES = (
    "poll_max_ns", "poll_grow", "poll_shrink", "aio_max_batch", "thread_pool_min",
    "thread_pool_max",
)  # fmt: skip
