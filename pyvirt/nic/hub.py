"""Several cards, and perhaps a way out, on one wire inside QEMU."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve, field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.nic.backend import Backend, Wire
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option


@frozen
class Hub(Backend):
    """A port of the hub numbered `hubid`: every card on it hears every packet.

    One of the cards may bring the hub's `uplink`, a back end that all of them share.
    """

    hubid: int = field(default=0, validator=fields.between(0, 2**31 - 1))
    uplink: Backend | None = field(default=None, validator=fields.optional(fields.kind(Backend)))

    def __attrs_post_init__(self) -> None:
        if isinstance(self.uplink, Hub):
            raise SpecError("uplink", "must not be a hub itself", self.uplink)
        if self.uplink is not None and self.uplink.virtio_only:
            raise SpecError("uplink", "must take every card, not only virtio-net", self.uplink)

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        if self.uplink is not None:
            out = f"{wire.id}-uplink"
            yield from self.uplink.options(evolve(wire, id=out, vhost=False))
            yield Option(
                "netdev",
                {"type": "hubport", "id": f"{out}port", "hubid": self.hubid, "netdev": out},
                source="backend.uplink",
            )
        yield self.netdev("hubport", wire, hubid=self.hubid)
