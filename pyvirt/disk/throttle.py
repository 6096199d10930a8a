"""Limits on what a disk may do, for one disk or for a group that shares them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot

#: QEMU's own bound of a rate (THROTTLE_VALUE_MAX).
HIGHEST = 10**15

RATES = tuple(f"{what}_{which}" for what in ("bps", "iops") for which in ("total", "read", "write"))


def _rate() -> Any:
    return field(default=None, validator=fields.optional(fields.between(1, HIGHEST)))


def _bytes() -> Any:
    return field(
        default=None,
        converter=fields.to_size,
        validator=fields.optional(fields.between(1, HIGHEST)),
    )


def _length() -> Any:
    return field(default=None, validator=fields.optional(fields.between(1, 2**32 - 1)))


@frozen(kw_only=True)
class Throttle:
    """Limits in QEMU's words.

    `bps_…` are bytes and `iops_…` requests a second, in total or for reads and writes
    apart. A `…_max` is the rate of a burst, `…_max_length` for how many seconds one may
    last. Requests larger than `iops_size` bytes count as several.
    """

    bps_total: int | str | None = _bytes()
    bps_read: int | str | None = _bytes()
    bps_write: int | str | None = _bytes()
    iops_total: int | None = _rate()
    iops_read: int | None = _rate()
    iops_write: int | None = _rate()
    bps_total_max: int | str | None = _bytes()
    bps_read_max: int | str | None = _bytes()
    bps_write_max: int | str | None = _bytes()
    iops_total_max: int | None = _rate()
    iops_read_max: int | None = _rate()
    iops_write_max: int | None = _rate()
    bps_total_max_length: int | None = _length()
    bps_read_max_length: int | None = _length()
    bps_write_max_length: int | None = _length()
    iops_total_max_length: int | None = _length()
    iops_read_max_length: int | None = _length()
    iops_write_max_length: int | None = _length()
    iops_size: int | str | None = field(
        default=None,
        converter=fields.to_size,
        validator=fields.optional(fields.between(1, HIGHEST)),
    )

    def __attrs_post_init__(self) -> None:
        for what in ("bps", "iops"):
            self._check_total(what)
        for rate in RATES:
            self._check_burst(rate)
        if self.iops_size is not None and not (
            self.iops_total or self.iops_read or self.iops_write
        ):
            raise SpecError("iops_size", "requires an iops value to be set", self.iops_size)

    def _check_total(self, what: str) -> None:
        total = getattr(self, f"{what}_total")
        apart = getattr(self, f"{what}_read") or getattr(self, f"{what}_write")
        if total and apart:
            reason = f"may not be set together with {what}_read or {what}_write"
            raise SpecError(f"{what}_total", reason, total)

    def _check_burst(self, rate: str) -> None:
        plain = getattr(self, rate)
        burst = getattr(self, f"{rate}_max")
        length = getattr(self, f"{rate}_max_length")
        if burst is not None and plain is None:
            raise SpecError(f"{rate}_max", f"requires {rate}", burst)
        if burst is not None and burst < plain:
            raise SpecError(f"{rate}_max", f"may not be lower than {rate} ({plain})", burst)
        if length is not None and burst is None:
            raise SpecError(f"{rate}_max_length", f"requires {rate}_max", length)
        if length is not None and burst * length > HIGHEST:
            raise SpecError(f"{rate}_max_length", "is too long for this burst rate", length)

    @property
    def limits(self) -> dict[str, int]:
        """The limits that are set, as a ``throttle-group`` takes them."""
        return {
            name.replace("_", "-"): value
            for name, value in attrs.asdict(self).items()
            if value is not None
        }

    @property
    def all_limits(self) -> dict[str, int]:
        """Every limit, 0 for none: what makes a live group forget the limits it had."""
        nothing = {
            name.replace("_", "-"): 1 if name.endswith("_length") else 0
            for name in attrs.asdict(self)
        }
        return {**nothing, **self.limits}


def group(id: str, throttle: Throttle, source: str = "") -> Option:
    """The ``throttle-group`` object `id`."""
    properties = {"qom-type": "throttle-group", "id": id, "limits": throttle.limits}
    return Option("object", properties, source)


@frozen
class ThrottleGroup:
    """Limits that disks share: each names the group's id as its `throttle`.

    It goes among the VM's devices.
    """

    id: str = field(validator=fields.name)
    limits: Throttle = field(validator=fields.kind(Throttle))

    prefix: ClassVar[str] = "throttle"
    slot: ClassVar[Slot] = Slot()

    def options(self, at: At) -> Iterator[Option | Need]:
        """The group as an object."""
        yield group(at.name, self.limits)
