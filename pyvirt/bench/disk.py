"""Disks as points of a matrix: devices, what is behind them, and the usual matrices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.bench.figure import known
from pyvirt.bench.fio import Fio
from pyvirt.bench.matrix import Matrix, options
from pyvirt.bench.place import Place
from pyvirt.disk import Disk, Null
from pyvirt.errors import SpecError
from pyvirt.fields import frozen


@frozen
class Model:
    """A storage device: the bus it is on, its controller, and what it is given.

    A `resident` one is there from the start, because its bus takes none later.
    """

    bus: str
    controller: str = ""
    given: Mapping[str, Any] = field(factory=dict, hash=False)
    resident: bool = False

    @property
    def virtio(self) -> bool:
        return self.bus == "virtio" or self.controller.startswith("virtio")


MODELS: Mapping[str, Model] = {
    "ide": Model("ide", resident=True),
    "ahci": Model("sata", resident=True),
    "sata": Model("sata", resident=True),
    "lsi": Model("scsi", "lsi53c895a"),
    "am53c974": Model("scsi", "am53c974"),
    "megasas": Model("scsi", "megasas"),
    "pvscsi": Model("scsi", "pvscsi"),
    "virtio-scsi": Model("scsi", "virtio-scsi-pci"),
    "virtio-blk": Model("virtio"),
    "virtio-blk-iothread": Model("virtio", given={"iothread": True}),
    "virtio-blk-packed": Model("virtio", given={"packed": True}),
    "virtio-blk-mq": Model("virtio", given={"queues": 4}),
    "nvme": Model("nvme"),
    "usb": Model("usb"),
}

BACKINGS = ("ram", "file", "null")
FORMATS = ("raw", "qcow2")


def _device(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    known(attribute.name, value, MODELS)


def _workload(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Fio):
        raise SpecError(attribute.name, "must be a Fio(...)", value)


def _one_of(*names: str) -> Any:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        known(attribute.name, value, names)

    return check


@frozen
class DiskPoint:
    """A disk of `size` bytes on a `device` of the table `MODELS`, under one workload.

    `backing` is "ram" (a file in /dev/shm), "file" (in the directory that `run` is given)
    or "null" (no data at all: the device alone is measured). All points of one size and
    format work on the same bytes. `cache` and `aio` are those of `pyvirt.Disk`,
    `properties` more of QEMU's for the device. `label` is its name in the results.
    """

    device: str = field(validator=_device)
    workload: Fio = field(factory=Fio, validator=_workload)
    place: Place = field(factory=Place, validator=fields.kind(Place), kw_only=True)
    backing: str = field(default="ram", validator=_one_of(*BACKINGS), kw_only=True)
    format: str = field(default="raw", validator=_one_of(*FORMATS), kw_only=True)
    size: int = field(
        default=256 << 20, converter=fields.to_size, validator=fields.positive, kw_only=True
    )
    cache: str | None = field(default=None, kw_only=True)
    aio: str | None = field(default=None, kw_only=True)
    properties: Mapping[str, Any] = field(
        factory=dict, validator=fields.kind(Mapping), kw_only=True, hash=False
    )
    label: str = field(default="", validator=fields.text, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.backing == "null" and (self.format != "raw" or self.cache or self.aio):
            raise SpecError("backing", "null has no format, cache or aio", self.backing)
        if self.resident and self.device == "ide" and self.place.machine.find("q35") >= 0:
            raise SpecError("device", "is not there on q35, whose disks are SATA", self.device)
        self.disk("a.raw")  # what does not go together is found here

    @property
    def model(self) -> Model:
        return MODELS[self.device]

    @property
    def resident(self) -> bool:
        """Whether it must be there when the guest starts."""
        return self.model.resident

    @property
    def name(self) -> str:
        """Its label, or what tells it from others: "ide/write-1M-x4"."""
        if self.label:
            return self.label
        words = [self.device, self.workload.label]
        words += [self.backing] if self.backing != "ram" else []
        words += [self.format] if self.format != "raw" else []
        return "/".join([*words, *filter(None, (self.cache, self.aio))])

    @property
    def options(self) -> Mapping[str, Any]:
        return options(self)

    @property
    def image(self) -> tuple[str, str, int]:
        """What is behind it: the points with the same share one image."""
        return self.backing, self.format, self.size

    def disk(
        self, path: str, serial: str | None = None, properties: Mapping[str, Any] | None = None
    ) -> Disk:
        """The disk, on the image `path`; `properties` are more of the device's."""
        null = self.backing == "null"
        given: dict[str, Any] = {**self.model.given, "bus": self.model.bus}
        if self.model.controller:
            given["controller"] = self.model.controller
        # Several devices of a guest may hold the raw image; only one works on it at a time.
        return Disk(
            Null(self.size) if null else path,
            self.format,
            cache=self.cache,
            aio=self.aio,
            locking=None if null else "off",
            serial=serial,
            properties={**self.properties, **(properties or {})},
            **given,
        )


def matrix(
    devices: Iterable[str],
    workloads: Iterable[Fio],
    *,
    baseline: str | None = None,
    rounds: int = 5,
    **how: Any,
) -> Matrix:
    """All `devices` under all `workloads`, each compared with `baseline` where one is named.

    `how` is for each point: `backing`, `format`, `cache`, `aio`, `size`, `place`.
    """
    points: list[DiskPoint] = []
    pairs: list[tuple[str, str]] = []
    wanted = list(devices)
    for workload in workloads:
        made = {device: DiskPoint(device, workload, **how) for device in wanted}
        points += made.values()
        if baseline is not None:
            known("baseline", baseline, made)
            base = made[baseline].name
            pairs += [(one.name, base) for device, one in made.items() if device != baseline]
    return Matrix(points, pairs, rounds=rounds)


#: Sequential writes of 1 MiB, 4 in flight.
SEQUENTIAL = Fio(rw="write", bs="1M", iodepth=4)


def headline(rounds: int = 9) -> Matrix:
    """Sequential writes: virtio-blk against IDE, on the same RAM-backed file."""
    return matrix(["ide", "virtio-blk"], [SEQUENTIAL], baseline="ide", rounds=rounds)


def quick() -> Matrix:
    """The headline in fewer rounds."""
    return headline(rounds=7)


def full(rounds: int = 7) -> Matrix:
    """Every device, sequential and random, read, written and mixed, small and large."""
    workloads = [
        SEQUENTIAL,
        Fio(rw="read", bs="1M", iodepth=4),
        Fio(rw="write", bs="64K", iodepth=16),
        Fio(rw="randwrite", bs="4K", iodepth=16),
        Fio(rw="randread", bs="4K", iodepth=16),
        Fio(rw="randrw", bs="4K", iodepth=16, mix=70),
        Fio(rw="randread", bs="4K"),
        Fio(rw="randwrite", bs="4K"),
    ]
    devices = [name for name in MODELS if name not in ("sata", "am53c974")]
    return matrix(devices, workloads, baseline="ide", rounds=rounds)
