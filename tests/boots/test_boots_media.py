"""Discs, disks, floppies and the network are booted for real, and what they show is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from boots.media import (
    GRUB_FLOPPY,
    GRUB_ISO,
    GRUB_USB,
    IPXE_ISO,
    MEMTEST_ISO,
    MEMTEST_KERNEL,
    NETBOOT,
    boot_sector,
    present,
)
from support.qemu import needs_qemu

from pyvirt import CDROM, VM, Disk, Firmware, Floppy, Kernel, Nic, RunningVM, TimedOut, User
from pyvirt.devices import StdVga

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

LIMIT = 60.0


def booting(**more: Any) -> RunningVM:
    """A VM without a guest of ours, and with a screen."""
    given = {"memory": "64M", "video": StdVga(), "accel": "tcg"}
    return VM(**{**given, **more}).start()


def test_a_disc_shows_its_menu_and_takes_keys() -> None:
    disc = CDROM(present(GRUB_ISO), bootindex=0)
    with booting(disks=[disc]) as running:
        match = running.wait_for(text=r"GNU GRUB +version (\S+)", timeout=LIMIT)
        assert match is not None
        assert match.group(1).startswith("2.")
        running.wait_for(text=r"│\*\w.* │\n", timeout=LIMIT)  # the menu is there
        running.send_keys("c")
        running.wait_for(text="grub> ", timeout=LIMIT)
        running.type_text("echo typed; echo $grub_platform\n")
        running.wait_for(text=r"(?m)^typed\npc$", timeout=LIMIT)


@pytest.mark.parametrize("bus", ["virtio", "usb"])
def test_a_disk_with_its_own_boot_loader(bus: str) -> None:
    disk = Disk(present(GRUB_USB), "raw", bus=bus, snapshot=True, bootindex=0)
    with booting(disks=[disk]) as running:
        running.wait_for(text=r"GNU GRUB +version", timeout=LIMIT)
        running.send_keys("c")
        running.wait_for(text="grub> ", timeout=LIMIT)
        running.type_text("echo $root\n")
        running.wait_for(text=r"(?m)^hd0\b", timeout=LIMIT)


def test_a_floppy() -> None:
    floppy = Floppy(present(GRUB_FLOPPY), readonly=True)
    with booting(machine="pc", boot=Firmware(order="a"), disks=[floppy]) as running:
        running.wait_for(text="GNU GRUB", timeout=LIMIT)


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_boot_sector_speaks_on_the_serial_port(machine: str, tmp_path: Path) -> None:
    image = tmp_path / "sector, made here.img"
    image.write_bytes(boot_sector("Hello from 0x7c00\r\n"))
    with booting(machine=machine, disks=[Disk(image, "raw", bootindex=0)]) as running:
        running.wait_for(serial=r"Hello from 0x7c00\n", timeout=LIMIT)
        assert running.console.text == "Hello from 0x7c00\n"


def test_another_disk_is_booted_after_a_reset(tmp_path: Path) -> None:
    disks = []
    for number, word in enumerate(("first", "second")):
        image = tmp_path / word
        image.write_bytes(boot_sector(f"this is the {word}\n"))
        disks.append(Disk(image, "raw", bootindex=number))
    with booting(disks=disks) as running:
        running.wait_for(serial="this is the first", timeout=LIMIT)
        running.boot_from("disk1")
        running.reset()
        running.wait_for(serial="this is the second", timeout=LIMIT)


def test_ipxe_runs_a_script_from_the_user_network(tmp_path: Path) -> None:
    script = "#!ipxe\necho fetched by ${ip} from ${next-server}\nshell\n"
    (tmp_path / "boot.ipxe").write_text(script)
    disc = CDROM(present(IPXE_ISO), bootindex=0)
    nic = Nic(User(tftp=tmp_path, bootfile="boot.ipxe"))
    with booting(disks=[disc], nics=[nic]) as running:
        running.wait_for(text=r"iPXE 1\.", timeout=LIMIT)
        running.wait_for(text=r"(?m)^fetched by 10\.0\.2\.15 from 10\.0\.2\.2$", timeout=LIMIT)


def test_pxe_shows_the_menu_of_debians_installer() -> None:
    network = User(tftp=present(NETBOOT), bootfile="/pxelinux.0")
    with booting(nics=[Nic(network, bootindex=0)], memory="256M") as running:
        running.wait_for(text=r"Debian GNU/Linux installer menu \(BIOS mode\)", timeout=LIMIT)
        running.wait_for(text=r" Install\n +Advanced options", timeout=LIMIT)


def test_memtest_from_its_disc_tests_the_memory() -> None:
    with booting(disks=[CDROM(present(MEMTEST_ISO), bootindex=0)]) as running:
        running.wait_for(text=r"Memtest86\+ v\d", timeout=LIMIT)
        running.wait_for(text=r"Testing: .*\[[\d.]+MB of 63", timeout=LIMIT)


def test_memtest_as_a_kernel_with_a_command_line() -> None:
    kernel = Kernel(present(MEMTEST_KERNEL), append="console=ttyS0,115200 nosmp")
    with booting(boot=kernel, video=None) as running:
        running.wait_for(serial=r"Memtest86\+", timeout=LIMIT)


def test_what_is_missing_on_the_screen_is_told_with_what_is_there() -> None:
    with booting(boot=Firmware(strict=True)) as running:
        running.wait_for(text="SeaBIOS", timeout=LIMIT)
        running.wait_for(text="No bootable device", timeout=LIMIT)
        with pytest.raises(TimedOut) as caught:
            running.wait_for(text="login:", timeout=0.5)
    assert "'login:' on the screen took longer than 0.5 s: it shows 'SeaBIOS" in str(caught.value)
