"""The network cards QEMU has, and what sets them apart."""

from __future__ import annotations

from attrs import frozen

#: What else virtio-net is called when it is on PCI.
VIRTIO_PCI = (
    "virtio-net-pci",
    "virtio-net-pci-transitional",
    "virtio-net-pci-non-transitional",
)
VIRTIO = ("virtio-net", "virtio-net-device", *VIRTIO_PCI)

INTEL_8254X = ("e1000", "e1000-82540em", "e1000-82544gc", "e1000-82545em")
INTEL_8255X = (
    "i82550", "i82551", "i82557a", "i82557b", "i82557c", "i82558a", "i82558b",
    "i82559a", "i82559b", "i82559c", "i82559er", "i82562", "i82801",
)  # fmt: skip

#: Every card of a PC. `Nic` takes any other name as well, as that of a PCI card.
MODELS = (
    "virtio-net", "e1000e", "igb", "vmxnet3", "rtl8139", "ne2k_pci", "pcnet", "tulip",
    "usb-net", "ne2k_isa", *INTEL_8254X, *INTEL_8255X, *VIRTIO[1:],
)  # fmt: skip

_BUSES = {"usb-net": "usb", "ne2k_isa": "isa"}


@frozen
class Model:
    """A card's driver as the user named it."""

    name: str

    @property
    def virtio(self) -> bool:
        return self.name in VIRTIO

    @property
    def bus(self) -> str:
        """The bus it sits on."""
        return _BUSES.get(self.name, "pci")

    @property
    def pci(self) -> bool:
        return self.bus == "pci" and self.name != "virtio-net-device"

    @property
    def driver(self) -> str:
        """The device that topology seats: on PCI unless the machine has none."""
        return "virtio-net-pci" if self.name == "virtio-net" else self.name
