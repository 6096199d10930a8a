"""When the host starts a container by itself."""

from __future__ import annotations

from attrs import field

from pyvirt import fields
from pyvirt.fields import frozen


@frozen(kw_only=True)
class Autostart:
    """Start with the host (``pyvirt container autostart``): highest `order` first.

    `delay` seconds are waited before the next; `groups` it belongs to.
    """

    order: int = field(default=0, validator=fields.between(-(1 << 30), 1 << 30))
    delay: int = field(default=0, validator=fields.between(0, 1 << 30))
    groups: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.text)
    )
