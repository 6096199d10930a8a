"""A network card and what is behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached, present
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.nic import mac as macs
from pyvirt.nic.backend import Backend, Wire
from pyvirt.nic.features import Control, Offloads, to_offloads
from pyvirt.nic.hub import Hub
from pyvirt.nic.model import Model
from pyvirt.nic.rate import Rate, to_rate
from pyvirt.nic.user import User
from pyvirt.nic.vhost import VhostUser, VhostVdpa
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot
from pyvirt.qmp.flow import Command

#: Fields that only virtio-net has, by the names of its properties.
VIRTIO_FIELDS = (
    "rx_queue_size", "tx_queue_size", "packed", "mrg_rxbuf", "event_idx", "indirect_desc",
    "rss", "hash", "failover", "speed", "duplex", "iommu_platform",
)  # fmt: skip

_flag = fields.optional(fields.kind(bool))


def _ring(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value not in (256, 512, 1024):
        raise SpecError(field.name, "must be a power of 2 between 256 and 1024", value)


@frozen
class Nic(Attached):
    """A network card of any `model`, joined to a back end (none: its cable is unplugged).

    `mac` is derived from the names of the VM and of the card unless given, so that it is
    the same at every start. `link` is whether its cable is plugged when the guest starts.
    `romfile` is the card's boot ROM: by default QEMU's own where `bootindex` asks to boot
    from it, and none elsewhere, which starts faster and leaves room for 40 cards; True or
    False decide it. `rate` limits it (`Rate`, or bytes a second both ways). `dump` is a
    file that gets every packet (pcap).

    For virtio-net: `queues` pairs of queues; `mtu` is told to the guest; `speed` is in
    Mbit/s; `offloads` (False is none) and `control` are its feature bits. `failover` makes
    it the standby of the card whose `failover_pair_id` names it.
    The default guest asks for its address by DHCP, unless it was told one (see `Guest`).
    Raises `SpecError` naming the field.
    """

    backend: Backend | None = field(
        factory=User, validator=fields.optional(fields.kind(Backend)), kw_only=False
    )
    model: str = field(default="virtio-net", validator=fields.name, kw_only=True)
    mac: str | None = field(default=None, converter=macs.to_mac, kw_only=True)
    link: bool = field(default=True, validator=fields.kind(bool), kw_only=True)
    bootindex: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 2**31 - 1)), kw_only=True
    )
    romfile: str | bool | None = field(
        default=None, validator=fields.optional(fields.kind(str, bool)), kw_only=True
    )
    rate: Rate | None = field(
        default=None,
        converter=to_rate,
        validator=fields.optional(fields.kind(Rate)),
        kw_only=True,
    )
    dump: Path | None = field(
        default=None, converter=fields.to_path, kw_only=True
    )
    # QEMU's limit is MAX_QUEUE_NUM; a tap has no more than 256 (MAX_TAP_QUEUES).
    queues: int = field(default=1, validator=fields.between(1, 256), kw_only=True)
    mtu: int | None = field(
        default=None, validator=fields.optional(fields.between(68, 65535)), kw_only=True
    )
    rx_queue_size: int | None = field(
        default=None, validator=fields.optional(_ring), kw_only=True
    )
    tx_queue_size: int | None = field(
        default=None, validator=fields.optional(_ring), kw_only=True
    )
    packed: bool | None = field(default=None, validator=_flag, kw_only=True)
    mrg_rxbuf: bool | None = field(default=None, validator=_flag, kw_only=True)
    event_idx: bool | None = field(default=None, validator=_flag, kw_only=True)
    indirect_desc: bool | None = field(default=None, validator=_flag, kw_only=True)
    rss: bool | None = field(default=None, validator=_flag, kw_only=True)
    hash: bool | None = field(default=None, validator=_flag, kw_only=True)
    iommu_platform: bool | None = field(default=None, validator=_flag, kw_only=True)
    speed: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 2**31 - 1)), kw_only=True
    )
    duplex: str | None = field(
        default=None, validator=fields.optional(fields.choice("half", "full")), kw_only=True
    )
    offloads: Offloads | None = field(
        default=None,
        converter=to_offloads,
        validator=fields.optional(fields.kind(Offloads)),
        kw_only=True,
    )
    control: Control | None = field(
        default=None, validator=fields.optional(fields.kind(Control)), kw_only=True
    )
    failover: bool | None = field(default=None, validator=_flag, kw_only=True)
    failover_pair_id: str | None = field(
        default=None, validator=fields.optional(fields.name), kw_only=True
    )

    PREFIX: ClassVar[str] = "nic"

    def __attrs_post_init__(self) -> None:
        _check_model(self)
        _check_virtio(self)
        _check_backend(self)

    @property
    def slot(self) -> Slot:
        model = Model(self.model)
        return Slot(
            model.bus,
            group="nic",
            address=self.address,
            driver=model.driver,
            unpluggable=model.bus != "isa",
        )

    @property
    def needs_shared_memory(self) -> bool:
        """Whether another process serves it and must see the guest's memory."""
        return self.backend is not None and self.backend.shares_memory

    def address_in(self, at: At) -> str:
        """The MAC address the guest will see. Failover partners share one."""
        return self.mac or macs.derived(at.vm, self.failover_pair_id or at.name)

    def user_netdev(self, name: str) -> str | None:
        """The id of the user network behind the card named `name`, if there is one."""
        if isinstance(self.backend, Hub):
            return f"{name}-net-uplink" if isinstance(self.backend.uplink, User) else None
        return f"{name}-net" if isinstance(self.backend, User) else None

    def options(self, at: At) -> Iterator[Option | Need]:
        net = f"{at.name}-net"
        if self.backend is not None:
            yield from self.backend.options(self._wire(net))
        if self.dump is not None:
            dump = {"qom-type": "filter-dump", "id": f"{at.name}-dump", "netdev": net}
            yield Option("object", {**dump, "file": str(self.dump)}, source="dump")
        model = Model(self.model)
        driver = at.virtio("net") if self.model == "virtio-net" else self.model
        own = {
            "netdev": None if self.backend is None else net,
            "mac": self.address_in(at),
            "bootindex": self.bootindex,
            "failover_pair_id": self.failover_pair_id,
            **(_rom(self) if model.pci and at.transport == "pci" else {}),
            **(_virtio(self, at) if model.virtio else {}),
        }
        yield self.literal(driver, at, own)

    def adjustments(self, at: At) -> Iterator[Command]:
        """What QEMU is told once the card is there: no property of it unplugs its cable."""
        if not self.link:
            yield Command("set_link", {"name": at.name, "up": False})

    def _wire(self, net: str) -> Wire:
        # A filter does not see what the kernel moves past QEMU, so vhost and dump exclude
        # each other (netfilter_complete).
        vhost = Model(self.model).virtio and self.dump is None
        return Wire(net, queues=self.queues, mtu=self.mtu, rate=self.rate, vhost=vhost)


def _rom(nic: Nic) -> dict[str, Any]:
    rom = nic.romfile
    if rom is None:
        rom = nic.bootindex is not None
    if isinstance(rom, bool):
        return {} if rom else {"romfile": ""}
    return {"romfile": rom}


def _virtio(nic: Nic, at: At) -> dict[str, Any]:
    given = {name: getattr(nic, name) for name in VIRTIO_FIELDS}
    pci = at.transport == "pci" and nic.model != "virtio-net-device"
    if nic.queues > 1:
        given["mq"] = True
        # One vector for each queue, one for the control queue, one for the configuration.
        given["vectors"] = 2 * nic.queues + 2 if pci else None
    if nic.iommu_platform and pci:
        given["disable-legacy"] = "on"  # QEMU: neither legacy nor transitional devices have it.
    given["host_mtu"] = nic.mtu
    for bits in (nic.offloads, nic.control):
        given |= {} if bits is None else bits.properties()
    return present(given)


def _check_model(nic: Nic) -> None:
    model = Model(nic.model)
    if not model.virtio:
        for name in (*VIRTIO_FIELDS, "mtu", "offloads", "control"):
            if getattr(nic, name) is not None:
                raise SpecError(name, f"belongs to virtio-net, not {nic.model}", getattr(nic, name))
        if nic.queues > 1:
            raise SpecError("queues", f"must be 1 for {nic.model}: virtio-net has more", nic.queues)
    if not model.pci:
        for name in ("romfile", "failover_pair_id"):
            if getattr(nic, name) is not None:
                raise SpecError(name, f"belongs to PCI cards, not {nic.model}", getattr(nic, name))


def _check_virtio(nic: Nic) -> None:
    if nic.queues > 1 and nic.control is not None and nic.control.ctrl_vq is False:
        raise SpecError("queues", "above 1 need the control queue, which is off", nic.queues)
    if nic.failover and nic.failover_pair_id is not None:
        raise SpecError("failover_pair_id", "must not be set on the standby itself", True)
    size = nic.tx_queue_size or 0
    if size > 256 and not isinstance(nic.backend, VhostUser | VhostVdpa):
        # QEMU 7.2 takes it and then uses 256 (virtio_net_max_tx_queue_size).
        raise SpecError("tx_queue_size", "above 256 needs VhostUser or VhostVdpa", size)


def _check_backend(nic: Nic) -> None:
    backend = nic.backend
    if backend is None:
        for name in ("rate", "dump"):
            if getattr(nic, name) is not None:
                raise SpecError(name, "needs a back end", getattr(nic, name))
        return
    kind = type(backend).__name__
    if nic.queues > 1 and not backend.multiqueue:
        raise SpecError("queues", f"must be 1 for {kind}, which has one pair", nic.queues)
    if backend.virtio_only and not Model(nic.model).virtio:
        raise SpecError("model", f"must be virtio-net for {kind}", nic.model)
    if nic.rate is not None and backend.unlimited is not None:
        raise SpecError("rate", backend.unlimited, nic.rate)
    _check_passing_by(nic, backend)


def _check_passing_by(nic: Nic, backend: Backend) -> None:
    """What no longer passes through QEMU cannot be dumped by it."""
    bypasses = isinstance(backend, VhostUser | VhostVdpa) or getattr(backend, "vhost", False)
    if nic.dump is not None and bypasses:
        raise SpecError("dump", "must not be used with vhost, which passes QEMU by", nic.dump)
    if getattr(backend, "vhost", False) and not Model(nic.model).virtio:
        raise SpecError("backend.vhost", f"serves virtio-net, not {nic.model}", True)
    fds = getattr(backend, "fds", ())
    if fds and len(fds) != nic.queues:
        raise SpecError("backend.fds", f"must be one for each of {nic.queues} queues", fds)
