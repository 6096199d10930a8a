"""A disk on every bus, at the place chosen for it: SeaBIOS finds it there and boots it."""

from __future__ import annotations

import pytest
from support.qemu import needs_qemu, start

from pyvirt.machine import Machine
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import Slot
from pyvirt.qemu.topology import Topology

pytestmark = needs_qemu

# mov al, 0x10; out 0xf4, al; hlt: isa-debug-exit ends QEMU with (0x10 << 1) | 1.
SECTOR = b"\xb0\x10\xe6\xf4\xf4".ljust(510, b"\0") + b"\x55\xaa"
REACHED = 0x21


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("boot") / "sector.raw"
    path.write_bytes(SECTOR.ljust(1 << 20, b"\0"))
    return path


def disk(driver: str, name: str, place, node: str, **more) -> Option:
    device = {"driver": driver, "id": name, "drive": node, **place, **more}
    return Option("device", device)


@pytest.mark.parametrize(
    ("board", "driver", "slot", "before"),
    [
        ("pc", "ide-hd", Slot("ide"), 3),
        ("q35", "ide-hd", Slot("ide"), 3),
        ("pc", "ide-hd", Slot("sata"), 0),
        ("q35", "ide-hd", Slot("sata"), 6),
        ("pc", "scsi-hd", Slot("scsi", controller="lsi53c895a"), 7),
        ("q35", "scsi-hd", Slot("scsi", controller="lsi53c895a", alone=True), 3),
        ("q35", "scsi-hd", Slot("scsi", controller="megasas"), 0),
        ("q35", "scsi-hd", Slot("scsi", controller="pvscsi", alone=True), 0),
        ("q35", "scsi-hd", Slot("scsi"), 1),
        ("pc", "virtio-blk-pci", Slot("pci", group="disk", driver="virtio-blk-pci"), 9),
        ("q35", "virtio-blk-pci", Slot("pci", group="disk", driver="virtio-blk-pci"), 9),
        ("pc", "nvme", Slot("pci", group="disk", driver="nvme"), 0),
        ("q35", "nvme", Slot("pci", group="disk", driver="nvme"), 0),
        ("pc", "usb-storage", Slot("usb"), 2),
        ("q35", "usb-storage", Slot("usb"), 2),
        ("q35", "sd-card", Slot("sd"), 0),
        ("pc", "floppy", Slot("floppy"), 0),
        ("q35", "floppy", Slot("floppy"), 0),
    ],
    ids=lambda value: value.controller or value.bus if isinstance(value, Slot) else str(value),
)
def test_the_last_of_several_disks_boots(board, driver, slot, before, image):
    topology = Topology(Machine(board))
    options = [*topology.spares()]
    options.append(Option("device", {"driver": "isa-debug-exit", "iobase": 0xF4, "iosize": 4}))
    empty = {"driver": "null-co", "size": 1 << 20, "read-zeroes": True}
    for number in range(before + 1):
        name = f"disk{number}"
        made, at = topology.place(name, slot)
        file = {"driver": "file", "filename": str(image)} if number == before else empty
        node = {"driver": "raw", "node-name": f"{name}-node", "file": file}
        options += [*made, Option("blockdev", node)]
        more = {"serial": name} if driver in ("nvme", "usb-storage") else {}
        if number == before and driver not in ("sd-card", "floppy"):
            more["bootindex"] = 0
        options.append(disk(driver, name, at.place, f"{name}-node", **more))
    with start(options, "-boot", "order=ac", machine=board, stopped=False) as qemu:
        assert qemu.process.wait(60) == REACHED
