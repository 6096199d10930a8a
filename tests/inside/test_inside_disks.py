"""A disk on every bus and every controller, read and written by a guest on pc and q35."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from attrs import frozen
from inside.inside_disks import Found, found, image, write, written
from support.qemu import needs_qemu

from pyvirt import CDROM, VM, Disk, Floppy, RunningVM, RunTimedOut
from pyvirt.qemu.part import Part

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

#: Where a disk may hang: the description, and the driver by which Linux reaches it.
PLACES: dict[str, tuple[dict[str, str], str]] = {
    "ide": ({"bus": "ide"}, "ata_piix"),
    "virtio": ({}, "virtio_blk"),
    "nvme": ({"bus": "nvme"}, "nvme"),
    "sata": ({"bus": "sata"}, "ahci"),
    "virtio-scsi": ({"bus": "scsi"}, "virtio_scsi"),
    "lsi53c895a": ({"bus": "scsi", "controller": "lsi53c895a"}, "sym53c8xx"),
    "lsi53c810": ({"bus": "scsi", "controller": "lsi53c810"}, "sym53c8xx"),
    "megasas": ({"bus": "scsi", "controller": "megasas"}, "megaraid_sas"),
    "megasas-gen2": ({"bus": "scsi", "controller": "megasas-gen2"}, "megaraid_sas"),
    "mptsas1068": ({"bus": "scsi", "controller": "mptsas1068"}, "mptsas"),
    "pvscsi": ({"bus": "scsi", "controller": "pvscsi"}, "vmw_pvscsi"),
    "am53c974": ({"bus": "scsi", "controller": "am53c974"}, "am53c974"),
    "dc390": ({"bus": "scsi", "controller": "dc390"}, "am53c974"),
    "xhci": ({"bus": "usb"}, "xhci_hcd"),
    "nec-xhci": ({"bus": "usb", "controller": "nec-usb-xhci"}, "xhci_hcd"),
    "ehci": ({"bus": "usb", "controller": "usb-ehci"}, "ehci-pci"),
    "ich9-ehci": ({"bus": "usb", "controller": "ich9-usb-ehci1"}, "ehci-pci"),
    "uhci": ({"bus": "usb", "controller": "piix3-usb-uhci"}, "uhci_hcd"),
    "ohci": ({"bus": "usb", "controller": "pci-ohci"}, "ohci-pci"),
    "sd": ({"bus": "sd"}, "sdhci-pci"),
}
#: CD-ROMs share their controllers with the disks, and a floppy has its own.
CDROMS = {"cd-ide": "ide", "cd-sata": "sata", "cd-scsi": "virtio-scsi"}
NAMES = [*PLACES, "floppy", *CDROMS]


@frozen
class Lab:
    """A guest with all of them, and what it found."""

    guest: RunningVM
    folder: Path
    disks: Mapping[str, Found]


@pytest.fixture(scope="module", params=["pc", "q35"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("disks, all of them")
    vm = VM(machine=request.param, accel="tcg", disks=list(disks(folder)))
    with vm.start() as guest:
        listed = "ls /sys/block | grep -c -v loop"
        ready = f"until [ $({listed}) = {len(NAMES)} ]; do sleep 0.1; done"
        with suppress(RunTimedOut):  # the tests say what is missing
            guest.run(ready, timeout=60)
        yield Lab(guest, folder, found(guest))


def disks(folder: Path) -> Iterator[Part]:
    for name, (place, _driver) in PLACES.items():
        yield Disk(image(folder, name), "raw", **place)  # type: ignore[arg-type]
    yield Floppy(image(folder, "floppy", 1474560))
    for name, place in CDROMS.items():
        yield CDROM(image(folder, name), **PLACES[place][0])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_is_where_it_was_described(lab: Lab, name: str) -> None:
    place = PLACES.get(CDROMS.get(name, name))
    assert (place[1] if place else "floppy") in lab.disks[name].drivers
    assert ("sr" in lab.disks[name].drivers) is (name in CDROMS)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CDROMS])
def test_what_a_guest_writes_is_in_the_image(lab: Lab, name: str) -> None:
    word = f"{name}-was-here"
    write(lab.guest, lab.disks[name].name, word)
    assert written(lab.folder / f"{name}.img", len(word)) == word


@pytest.mark.parametrize("name", CDROMS)
def test_no_guest_writes_to_a_disc(lab: Lab, name: str) -> None:
    before = (lab.folder / f"{name}.img").read_bytes()
    assert lab.guest.run(f"echo x > /dev/{lab.disks[name].name}").exit_code != 0
    assert (lab.folder / f"{name}.img").read_bytes() == before
