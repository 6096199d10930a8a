"""What is behind a network card: one of QEMU's netdevs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import present
from pyvirt.fields import frozen
from pyvirt.nic.rate import Rate
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Late, Option


@frozen
class Wire:
    """What the card asks of its back end: the netdev's `id`, and what both must agree on.

    `vhost` says whether the kernel or another process may move the packets past QEMU.
    """

    id: str
    queues: int = 1
    mtu: int | None = None
    rate: Rate | None = None
    vhost: bool = False


@frozen(kw_only=True)
class Backend:
    """A netdev. `properties` are given to QEMU as they are and win over the fields."""

    properties: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping))

    #: Whether it carries more than one pair of queues.
    multiqueue: ClassVar[bool] = False
    #: Whether it talks to virtio-net and to no other card.
    virtio_only: ClassVar[bool] = False
    #: Whether another process reads the guest's memory, which must then be shared.
    shares_memory: ClassVar[bool] = False

    @property
    def unlimited(self) -> str | None:
        """Why it cannot hold a card to a rate, or None if it can."""
        return "needs a Tap: QEMU itself limits no network card, the kernel limits taps"

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        """The options of the netdev ``wire.id``, and what they need."""
        raise NotImplementedError

    def netdev(self, kind: str, wire: Wire, **given: Any) -> Option:
        """``-netdev kind`` with what was given, in QEMU's spelling."""
        properties = {"type": kind, "id": wire.id, **present(given), **self.properties}
        return Option("netdev", properties, source="backend")

    def connected(self, wire: Wire) -> Option:
        """The netdev on a connected stream socket, which the need ``wire.id`` supplies."""
        # Not ``stream``, which carries the same bytes: it connects on a thread, where QEMU
        # does not know the names of descriptors that came by QMP (socket_get_fd), so that
        # a card plugged later would be joined to nothing.
        return self.netdev("socket", wire, fd=Late(wire.id))


@frozen
class Netdev(Backend):
    """Any netdev of this QEMU by its `type`: the way out for those without a class."""

    type: str = field(validator=fields.text)
    properties: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping))

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        queues = {"queues": wire.queues} if wire.queues > 1 else {}
        yield self.netdev(self.type, wire, **queues)

    multiqueue: ClassVar[bool] = True
