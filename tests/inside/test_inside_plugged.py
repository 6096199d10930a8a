"""Disks plugged into a running guest, each with its controller, are what they are at start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from inside.inside_disks import Found, found, image, write, written
from inside.test_inside_disks import PLACES
from support.qemu import needs_qemu

from pyvirt import VM, Disk, Machine, RunningVM

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

#: Where a disk may be plugged, and whether Linux is told when it goes.
PLUGGED = {
    "virtio": True,
    "nvme": True,
    "virtio-scsi": True,
    "pvscsi": True,
    "xhci": True,
    "ehci": True,
    "megasas-gen2": False,
    "lsi53c895a": False,
}


@pytest.fixture(scope="module")
def roomy() -> Iterator[RunningVM]:
    machine = Machine("q35", hotplug_ports=8, hotplug_bridge=True)
    with VM(machine=machine, accel="tcg").start() as running:
        running.wait_for(agent=True)
        yield running


@pytest.mark.parametrize("name", PLUGGED)
def test_a_disk_comes_with_its_controller_and_goes(
    roomy: RunningVM, tmp_path: Path, name: str
) -> None:
    place, driver = PLACES[name]
    path = image(tmp_path, name)
    plugged = roomy.plug(Disk(path, "raw", **place))  # type: ignore[arg-type]
    disk = settled(roomy, name)
    assert driver in disk.drivers
    write(roomy, disk.name, "seen")
    assert written(path, 4) == "seen"
    roomy.unplug(plugged)
    if PLUGGED[name]:
        gone = f"until ! [ -e /sys/block/{disk.name} ]; do sleep 0.1; done"
        roomy.run(gone, timeout=60).check()


def test_a_disk_on_an_old_controller_is_there_once_the_guest_looks_again(
    roomy: RunningVM, tmp_path: Path
) -> None:
    place, driver = PLACES["lsi53c810"]
    first, second = (
        Disk(image(tmp_path, name), "raw", **place)  # type: ignore[arg-type]
        for name in ("comes", "joins")
    )
    roomy.plug(first)
    there = f"readlink /sys/block/{settled(roomy, 'comes').name} | grep -o 'host[0-9]*' | head -n 1"
    roomy.plug(second)
    roomy.run(f"echo '- - -' > /sys/class/scsi_host/$({there})/scan").check()
    assert driver in settled(roomy, "joins").drivers


def settled(guest: RunningVM, name: str) -> Found:
    """The disk, once the guest has found it."""
    for _ in range(200):
        there = found(guest)
        if name in there:
            return there[name]
        time.sleep(0.2)
    said = guest.run("dmesg | tail -n 30; ls /sys/block").stdout
    raise AssertionError(f"{name} does not come; the guest says:\n{said}")
