"""What controllers offer: the places behind each model, as QEMU counts them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import evolve, field, frozen

#: The properties that tell two places of a bus apart, beside the bus itself.
KEYS: Mapping[str, tuple[str, ...]] = {
    "scsi": ("channel", "scsi-id", "lun"),
    "ide": ("unit",),
    "sata": ("unit",),
    "usb": ("port",),
    "virtio-serial": ("nr",),
    "floppy": ("unit",),
    "sd": (),
}

#: Buses to which QEMU adds nothing while the guest runs.
FIXED = frozenset({"ide", "sata", "sd", "floppy", "isa"})


@frozen
class Companion:
    """Another function of the same slot that belongs to a controller."""

    driver: str
    function: int
    firstport: int


@frozen
class Controller:
    """A controller model: `count` places on the bus it brings, when made with `properties`.

    `counts` are the properties that say how many, with QEMU's own defaults: the largest
    counts. `limit` is how many a machine may have; `pci` says whether it takes a PCI slot.
    `scans_once`: it does not tell a guest of what is plugged behind it later.
    """

    model: str
    bus: str
    count: int
    counts: Mapping[str, int] = field(factory=dict)
    limit: int | None = None
    pci: bool = True
    properties: Mapping[str, Any] = field(factory=dict)
    function: int = 0
    companions: tuple[Companion, ...] = ()
    scans_once: bool = False

    def places(self, id: str, parent: str, driver: str = "") -> Iterator[dict[str, Any]]:
        """Every place behind controller `id`, which sits on bus `parent`, for a `driver`."""
        match self.bus:
            case "scsi":
                for number in range(self.count):
                    yield {"bus": f"{id}.0", "scsi-id": number, "lun": 0}
            case "ide" | "floppy":
                for number in range(self.count):
                    yield {"bus": f"{id}.{number // 2}", "unit": number % 2}
            case "sata":
                for number in range(self.count):
                    yield {"bus": f"{id}.{number}", "unit": 0}
            case "usb":
                for number in range(1, self.count + 1):
                    yield {"bus": f"{id}.0", "port": str(number)}
            case "virtio-serial":
                # Number 0 is for the first console; older guests take what is there for one.
                for number in range(0 if driver == "virtconsole" else 1, self.count):
                    yield {"bus": f"{id}.0", "nr": number}
            case "sd":
                # The bus is called "sd-bus" whatever the id: only a path tells two apart.
                yield {"bus": f"{parent}/{id}/sd-bus"}

    def given(self, properties: Mapping[str, Any]) -> Controller:
        """This model as a user made it with `properties`."""
        if not self.counts:
            return self
        return evolve(self, count=max(int(properties.get(k, n)) for k, n in self.counts.items()))


def _scsi(model: str, targets: int) -> Controller:
    return Controller(model, "scsi", targets)


def _silent(model: str, targets: int) -> Controller:
    return Controller(model, "scsi", targets, scans_once=True)


def _xhci(model: str) -> Controller:
    return Controller(model, "usb", 15, {"p2": 4, "p3": 4}, properties={"p2": 15, "p3": 15})


def _serial(model: str) -> Controller:
    return Controller(model, "virtio-serial", 31, {"max_ports": 31})


_UHCI = tuple(Companion(f"ich9-usb-uhci{n + 1}", n, 2 * n) for n in range(3))

# Counts from QEMU's sources: max_target of each SCSI host without the host's own id (7 on a
# parallel bus), MFI_MAX_LD, PVSCSI_MAX_DEVS; 15 ports are what an XHCI can have at most,
# so that QEMU never adds a hub by itself.
_MODELS = (
    _scsi("virtio-scsi-pci", 256),
    _scsi("virtio-scsi-pci-non-transitional", 256),
    _scsi("virtio-scsi-pci-transitional", 256),
    _scsi("virtio-scsi-device", 256),
    _silent("lsi53c895a", 7),
    _silent("lsi53c810", 7),
    _silent("megasas", 64),
    _silent("megasas-gen2", 64),
    _silent("mptsas1068", 8),
    _scsi("pvscsi", 64),
    _silent("am53c974", 7),
    _silent("dc390", 7),
    Controller("ich9-ahci", "sata", 6),
    # It answers at the fixed ISA ports 0x1f0 and 0x170, so there can be one.
    Controller("piix3-ide", "ide", 4, limit=1),
    Controller("piix4-ide", "ide", 4, limit=1),
    _xhci("qemu-xhci"),
    _xhci("nec-usb-xhci"),
    Controller("usb-ehci", "usb", 6),
    Controller("ich9-usb-ehci1", "usb", 6, function=7, companions=_UHCI),
    Controller("ich9-usb-ehci2", "usb", 6),
    Controller("piix3-usb-uhci", "usb", 2),
    Controller("piix4-usb-uhci", "usb", 2),
    Controller("pci-ohci", "usb", 15, {"num-ports": 3}, properties={"num-ports": 15}),
    _serial("virtio-serial-pci"),
    _serial("virtio-serial-pci-non-transitional"),
    _serial("virtio-serial-pci-transitional"),
    _serial("virtio-serial-device"),
    Controller("sdhci-pci", "sd", 1),
    Controller("isa-fdc", "floppy", 2, limit=1, pci=False),
)

CONTROLLERS: Mapping[str, Controller] = {model.model: model for model in _MODELS}

#: QEMU's own short names.
ALIASES: Mapping[str, str] = {
    "lsi": "lsi53c895a",
    "ahci": "ich9-ahci",
    "virtio-scsi": "virtio-scsi-pci",
    "virtio-serial": "virtio-serial-pci",
}

#: What is made for a bus when the description names no model.
DEFAULTS: Mapping[str, str] = {
    "scsi": "virtio-scsi-pci",
    "sata": "ich9-ahci",
    "ide": "piix3-ide",
    "usb": "qemu-xhci",
    "virtio-serial": "virtio-serial-pci",
    "sd": "sdhci-pci",
    "floppy": "isa-fdc",
}

#: How the ids of made controllers begin.
PREFIXES: Mapping[str, str] = {
    "scsi": "scsi",
    "sata": "sata",
    "ide": "pata",
    "usb": "usb",
    "virtio-serial": "vserial",
    "sd": "sdhci",
    "floppy": "fdc",
}
