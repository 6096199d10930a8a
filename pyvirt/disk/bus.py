"""What each bus and each storage device of QEMU's can do: the tables behind the checks.

The words are QEMU's, the limits are those of what a guest can read or of what QEMU refuses;
the tests hold both to a real QEMU.
"""

from __future__ import annotations

from attrs import field, frozen

SIZES = frozenset(
    {
        "logical_block_size",
        "physical_block_size",
        "min_io_size",
        "opt_io_size",
        "discard_granularity",
    }
)
BLOCK = SIZES | {"share_rw", "cache"}
ERRORS = frozenset({"werror", "rerror"})
GEOMETRY = frozenset({"cyls", "heads", "secs"})

#: Fields whose property has another name.
WORDS = {
    "queues": "num-queues",
    "queue_size": "queue-size",
    "share_rw": "share-rw",
    "cache": "write-cache",
    "drive_type": "drive-type",
}


@frozen
class Driver:
    """A storage device: the `fields` it has properties for, and how long its texts may be.

    `words` are its own names for some of them. `needs_writable` devices refuse a node that
    can only be read.
    """

    name: str
    fields: frozenset[str]
    lengths: dict[str, int] = field(factory=dict, eq=False)
    words: dict[str, str] = field(factory=dict, eq=False)
    needs_writable: bool = False

    def word(self, name: str) -> str:
        """QEMU's property for field `name`."""
        return self.words.get(name) or WORDS.get(name, name)


_IDE = {"serial": 20, "model": 40, "ver": 8}
_SCSI = {"serial": 36, "vendor": 8, "product": 16, "ver": 4}
_IDE_CD = BLOCK | ERRORS | {"serial", "model", "ver", "wwn", "bootindex"}
_SCSI_CD = BLOCK | ERRORS | {"serial", "vendor", "product", "ver", "wwn", "bootindex"}
_VIRTIO = BLOCK | ERRORS | GEOMETRY | {"serial", "bootindex"}

DRIVERS = {
    driver.name: driver
    for driver in (
        Driver("ide-hd", _IDE_CD | GEOMETRY | {"rotation_rate"}, _IDE, needs_writable=True),
        Driver("ide-cd", _IDE_CD, _IDE),
        Driver("scsi-hd", _SCSI_CD | GEOMETRY | {"rotation_rate", "removable", "dpofua"}, _SCSI),
        Driver("scsi-cd", _SCSI_CD, _SCSI),
        Driver("scsi-block", ERRORS | {"rotation_rate", "share_rw", "bootindex"}),
        Driver("scsi-generic", frozenset({"share_rw", "bootindex"})),
        Driver(
            "virtio-blk", _VIRTIO | {"queues", "queue_size", "packed", "iothread"}, {"serial": 20}
        ),
        Driver(
            "nvme",
            BLOCK | {"serial", "bootindex", "queues"},
            {"serial": 20},
            {"queues": "max_ioqpairs"},
        ),
        Driver(
            "usb-storage", BLOCK | ERRORS | {"serial", "bootindex", "removable"}, {"serial": 36}
        ),
        Driver("sd-card", frozenset(), needs_writable=True),
        Driver("floppy", BLOCK | {"bootindex", "drive_type"}),
    )
}


@frozen
class Bus:
    """Where a disk may hang: the `slot` it wants there and the devices for each role.

    `sector` is the only logical block size the bus knows, where there is only one.
    """

    slot: str
    disks: tuple[str, ...]
    cdrom: str | None = None
    unpluggable: bool = False
    sector: int | None = None


BUSES = {
    "virtio": Bus("pci", ("virtio-blk",), unpluggable=True),
    "nvme": Bus("pci", ("nvme",), unpluggable=True),
    "scsi": Bus("scsi", ("scsi-hd", "scsi-block", "scsi-generic"), "scsi-cd", unpluggable=True),
    "ide": Bus("ide", ("ide-hd",), "ide-cd", sector=512),
    "sata": Bus("sata", ("ide-hd",), "ide-cd", sector=512),
    "usb": Bus("usb", ("usb-storage",), unpluggable=True),
    "sd": Bus("sd", ("sd-card",)),
    "floppy": Bus("floppy", ("floppy",), sector=512),
}

#: The devices that hand SCSI commands of the guest to a device of the host.
PASSTHROUGH = ("scsi-block", "scsi-generic")
