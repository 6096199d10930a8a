"""Network cards as points of a matrix: cards, what is behind them, and the usual matrices."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.bench.figure import known
from pyvirt.bench.iperf import Iperf, RoundTrip
from pyvirt.bench.matrix import Matrix, options
from pyvirt.bench.namespace import Namespace
from pyvirt.bench.place import Place
from pyvirt.errors import PyvirtError, SpecError
from pyvirt.fields import frozen
from pyvirt.nic import Backend, Nic

CARDS: Mapping[str, Mapping[str, Any]] = {
    "e1000": {"model": "e1000"},
    "e1000e": {"model": "e1000e"},
    "rtl8139": {"model": "rtl8139"},
    "vmxnet3": {"model": "vmxnet3"},
    "virtio-net": {},
    "virtio-net-packed": {"packed": True},
    "virtio-net-mq": {"queues": 2},
    "virtio-net-no-offloads": {"offloads": False},
}

#: user: libslirp in QEMU; tap: one in a network namespace made for the run; stream: a
#: socket to a second guest; passt: a process beside QEMU.
BACKENDS = ("user", "tap", "stream", "passt")


def _device(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    known(attribute.name, value, CARDS)


def _backend(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    known(attribute.name, value, BACKENDS)


def _workload(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Iperf | RoundTrip):
        raise SpecError(attribute.name, "must be an Iperf(...) or a RoundTrip(...)", value)


@frozen
class NetPoint:
    """A card of the table `CARDS` over a back end, under one workload.

    `vhost` lets the kernel move the packets of a virtio-net card on a tap. `properties` are
    more of QEMU's for the card. `label` is its name in the results.
    """

    device: str = field(validator=_device)
    workload: Iperf | RoundTrip = field(factory=Iperf, validator=_workload)
    backend: str = field(default="tap", validator=_backend, kw_only=True)
    vhost: bool = field(default=False, validator=fields.kind(bool), kw_only=True)
    place: Place = field(factory=Place, validator=fields.kind(Place), kw_only=True)
    properties: Mapping[str, Any] = field(
        factory=dict, validator=fields.kind(Mapping), kw_only=True, hash=False
    )
    label: str = field(default="", validator=fields.text, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.vhost and not (self.virtio and self.backend == "tap"):
            raise SpecError("vhost", "serves virtio-net on a tap", self.device)
        if self.queues > 1 and self.backend != "tap":
            raise SpecError("backend", f"must be tap for {self.device}", self.backend)
        self.nic(None)

    @property
    def virtio(self) -> bool:
        return self.device.startswith("virtio")

    @property
    def queues(self) -> int:
        return int(CARDS[self.device].get("queues", 1))

    @property
    def name(self) -> str:
        """Its label, or what tells it from others: "virtio-net/tap/send-tcp"."""
        backend = f"{self.backend}-vhost" if self.vhost else self.backend
        return self.label or f"{self.device}/{backend}/{self.workload.label}"

    @property
    def options(self) -> Mapping[str, Any]:
        return options(self)

    def nic(self, backend: Backend | None, properties: Mapping[str, Any] | None = None) -> Nic:
        """The card on an open back end; `properties` are more of the card's."""
        given = dict(CARDS[self.device])
        if backend is None:
            given.pop("queues", None)
        return Nic(backend, properties={**self.properties, **(properties or {})}, **given)


def matrix(
    devices: Iterable[str],
    workloads: Iterable[Iperf | RoundTrip],
    *,
    baseline: str | None = None,
    rounds: int = 5,
    **how: Any,
) -> Matrix:
    """All `devices` under all `workloads`, each compared with `baseline` where one is named.

    `how` is for each point: `backend`, `vhost`, `place`.
    """
    points: list[NetPoint] = []
    pairs: list[tuple[str, str]] = []
    wanted = list(devices)
    for workload in workloads:
        made = {device: NetPoint(device, workload, **how) for device in wanted}
        points += made.values()
        if baseline is not None:
            known("baseline", baseline, made)
            base = made[baseline].name
            pairs += [(one.name, base) for device, one in made.items() if device != baseline]
    return Matrix(points, pairs, rounds=rounds)


def usual_backend() -> str:
    """The one on which the usual matrices are: "tap" where one can be made, else "user"."""
    try:
        with Namespace() as namespace:
            for fd in namespace.tap()[1]:
                os.close(fd)
    except (PyvirtError, OSError):
        return "user"
    return "tap"


def headline(rounds: int = 9, backend: str | None = None) -> Matrix:
    """The guest sends TCP, copied and without copies: virtio-net against e1000.

    `backend` is `usual_backend()` unless named, here and below.
    """
    workloads = [Iperf("send"), Iperf("send", zero_copy=True)]
    backend = backend or usual_backend()
    return matrix(
        ["e1000", "virtio-net"], workloads, baseline="e1000", rounds=rounds, backend=backend
    )


def quick(backend: str | None = None) -> Matrix:
    """The guest sends TCP: virtio-net against e1000, in fewer rounds."""
    backend = backend or usual_backend()
    return matrix(
        ["e1000", "virtio-net"], [Iperf("send")], baseline="e1000", rounds=7, backend=backend
    )


def full(rounds: int = 7, backend: str | None = None) -> Matrix:
    """Every card, both directions, TCP and UDP, small packets, and round trips."""
    backend = backend or usual_backend()
    workloads: list[Iperf | RoundTrip] = [
        Iperf("send"),
        Iperf("receive"),
        Iperf("send", zero_copy=True),
        Iperf("send", streams=4),
        Iperf("send", "udp", length=1448),
        Iperf("receive", "udp", length=1448, rate=300_000_000),
        Iperf("send", "udp", length=64),
        RoundTrip(),
        RoundTrip(protocol="udp"),
    ]
    cards = [name for name in CARDS if backend == "tap" or name != "virtio-net-mq"]
    return matrix(cards, workloads, baseline="e1000", rounds=rounds, backend=backend)
