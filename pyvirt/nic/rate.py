"""How fast a card may go."""

from __future__ import annotations

from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen

#: Seconds of traffic that may pass at once, unless `Rate.burst` says how much.
BURST = 0.1

#: A burst must hold the largest packet: with segmentation offload that is nearly 64 KiB.
LEAST_BURST = 128 * 1024


@frozen(kw_only=True)
class Rate:
    """Bytes a second that the guest may `receive` and `send`; None is no limit.

    `burst` is how many bytes may pass at once, at least 128 KiB.
    """

    receive: int | None = field(
        default=None, converter=fields.to_size, validator=fields.optional(fields.positive)
    )
    send: int | None = field(
        default=None, converter=fields.to_size, validator=fields.optional(fields.positive)
    )
    burst: int | None = field(default=None, converter=fields.to_size)

    def __attrs_post_init__(self) -> None:
        if self.receive is None and self.send is None:
            raise SpecError("rate", "must limit receive or send", self)
        if self.burst is not None and self.burst < LEAST_BURST:
            raise SpecError("burst", f"must be at least {LEAST_BURST} bytes", self.burst)

    def bucket(self, rate: int) -> int:
        """The bytes that may pass at once at `rate`."""
        return self.burst or max(LEAST_BURST, int(rate * BURST))


def to_rate(value: Any) -> Any:
    """A number or a size limits both directions."""
    if value is None or isinstance(value, Rate):
        return value
    size = fields.size(value, "rate")
    return Rate(receive=size, send=size)
