"""The default guest on a microvm: with virtio alone, and with PCI Express."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inside.inside_disks import found, image, write, written
from support.qemu import needs_qemu

from pyvirt import VM, Disk, Machine, Nic, RunningVM, User
from pyvirt.devices import (
    Balloon,
    FwCfg,
    Plan9,
    Rng,
    UsbTablet,
    VirtioConsole,
    VirtioKeyboard,
    Watchdog,
)
from pyvirt.machine import Bios, QBoot, SeaBIOS

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

#: Disks by name: where they are, and the driver by which Linux reaches them.
MMIO = {"blk": ({"packed": True}, "virtio_blk"), "scsi": ({"bus": "scsi"}, "virtio_scsi")}
PCIE = {
    "nvme": ({"bus": "nvme"}, "nvme"),
    "sata": ({"bus": "sata"}, "ahci"),
    "usb": ({"bus": "usb"}, "xhci_hcd"),
    "lsi": ({"bus": "scsi", "controller": "lsi53c895a"}, "sym53c8xx"),
}


def says(guest: RunningVM, command: str) -> str:
    return guest.run(command, timeout=60).check().stdout.strip()


def settles(guest: RunningVM, condition: str) -> None:
    guest.run(f"until {condition}; do sleep 0.1; done", timeout=60).check()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("microvm")


@pytest.fixture(scope="module", params=[False, True], ids=["mmio", "pcie"])
def guest(request: pytest.FixtureRequest, folder: Path) -> Iterator[RunningVM]:
    (folder / "letter").write_text("from the host")
    places = MMIO | (PCIE if request.param else {})
    disks = [
        Disk(image(folder, name), "raw", id=f"disk-{name}", **place)  # type: ignore[arg-type]
        for name, (place, _driver) in places.items()
    ]
    nics = [Nic(User(net="10.78.0.0/24")), Nic(User(net="10.78.1.0/24"), model="virtio-net-device")]
    devices = [Rng(), Balloon(), FwCfg("opt/org.example/text", "a,b"), VirtioConsole()]
    devices += [VirtioKeyboard(), Plan9(folder, "papers", security_model="none")]
    if request.param:
        nics.append(Nic(User(net="10.78.2.0/24"), model="e1000e"))
        devices += [UsbTablet(), Watchdog("none")]
    machine = Machine("microvm", pcie=request.param)
    with VM(machine=machine, accel="tcg", disks=disks, nics=nics, devices=devices).start() as vm:
        vm.wait_for(agent=True)
        yield vm


def test_time_passes(guest: RunningVM) -> None:
    """Without a timer interrupt a guest runs, and sleeps for ever."""
    assert guest.run("sleep 0.2; echo awake", timeout=60).check().stdout == "awake\n"


def test_disks(guest: RunningVM, folder: Path) -> None:
    wanted = {name: driver for name, (_, driver) in (MMIO | PCIE).items()}
    wanted = {name: wanted[name] for name in wanted if f"disk-{name}" in guest.parts}
    settles(guest, f"[ $(ls /sys/block | grep -v -c loop) = {len(wanted)} ]")
    there = found(guest)
    assert {name for name, driver in wanted.items() if driver in there[name].drivers} == {*wanted}
    for name in wanted:
        write(guest, there[name].name, f"{name}-was-here")
        assert written(folder / f"{name}.img", len(name) + 9) == f"{name}-was-here"


def test_network_cards(guest: RunningVM) -> None:
    for number in range(sum(part.startswith("nic") for part in guest.parts)):
        settles(guest, f"ip -4 addr | grep -q 10.78.{number}.15")
        settles(guest, f"ping -c 1 -W 1 10.78.{number}.2 > /dev/null")


def test_other_devices(guest: RunningVM) -> None:
    says(guest, "mkdir -p /papers && mount -t 9p -o trans=virtio papers /papers")
    assert says(guest, "cat /papers/letter") == "from the host"
    path = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.example/text/raw"
    assert says(guest, f"modprobe -a qemu_fw_cfg; cat {path}") == "a,b"
    assert says(guest, "head -c 64 /dev/hwrng | wc -c") == "64"
    settles(guest, "grep -q 'QEMU Virtio Keyboard' /proc/bus/input/devices")
    assert guest.balloon("400M", timeout=60) == 400 << 20
    says(guest, "echo by the virtio console > /dev/hvc0")
    guest.consoles["console0"].expect("by the virtio console").result(60)
    if "watchdog0" in guest.parts:
        settles(guest, "[ -c /dev/watchdog ]")
        settles(guest, "grep -q 'QEMU USB Tablet' /proc/bus/input/devices")


def test_the_power_button_ends_it(guest: RunningVM) -> None:
    assert guest.shutdown(by="acpi", timeout=60).reason == "guest-shutdown"


@pytest.mark.parametrize("bios", [SeaBIOS(), QBoot()])
def test_its_firmware_may_be_chosen(bios: Bios) -> None:
    with VM(machine="microvm", accel="tcg", firmware=bios).start() as running:
        assert running.run("echo alive").stdout == "alive\n"
