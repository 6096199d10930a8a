"""UEFI: its shell, its variables, and what secure boot lets run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from boots.media import IPXE_EFI, present
from support.qemu import needs_qemu

from pyvirt import OVMF, VM, Disk, Firmware, RunningVM, UnsupportedError
from pyvirt.devices import StdVga
from pyvirt.disk.node import Node
from pyvirt.machine.firmware import UefiFiles
from pyvirt.running import ocr
from pyvirt.running.host import firmware

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

LIMIT = 90.0

#: A variable of our own; under the vendor of UEFI itself, only its own names may be set.
VARIABLE = "setvar Kept -guid 0d9f2c61-6f0b-4a6e-9d0e-3f5f5b8a1c27"


@pytest.fixture(autouse=True)
def _has_ovmf() -> None:
    try:
        firmware.find(UefiFiles("firmware", "q35", secure_boot=True, enrolled=True))
    except UnsupportedError:
        pytest.skip("the package ovmf is not installed")


def booting(ovmf: OVMF, **more: Any) -> RunningVM:
    return VM(firmware=ovmf, boot=Firmware(), memory="256M", accel="tcg", **more).start()


def shell(running: RunningVM) -> None:
    """Wait for the prompt of the UEFI shell on the serial port."""
    running.wait_for(serial=r"UEFI Interactive Shell v2", timeout=LIMIT)
    running.wait_for(serial="Press ESC", timeout=LIMIT)
    running.console.write("\x1b")
    running.wait_for(serial="Shell> ", timeout=LIMIT)


@pytest.fixture
def loader(tmp_path: Path) -> Disk:
    """A disk with a boot loader that nobody signed, where UEFI looks for one."""
    folder = tmp_path / "EFI/BOOT"
    folder.mkdir(parents=True)
    shutil.copy(present(IPXE_EFI), folder / "BOOTX64.EFI")
    files = Node("vvfat", {"dir": str(tmp_path), "fat-type": 16})
    return Disk(files, "raw", readonly=True, bootindex=0)


def test_variables_are_kept_from_one_start_to_the_next(tmp_path: Path) -> None:
    store = tmp_path / "variables, kept.fd"
    with booting(OVMF(store=store)) as running:
        shell(running)
        running.console.write(f'{VARIABLE} -nv -bs -rt =c0ffee42\r')
        running.wait_for(serial="Shell> ", timeout=LIMIT)
    with booting(OVMF(store=store)) as running:
        shell(running)
        running.console.write(f"{VARIABLE}\r")
        running.wait_for(serial=r"Kept - 0004 Bytes\s+C0 FF EE 42", timeout=10)


def test_variables_without_a_store_are_forgotten() -> None:
    vm = VM(firmware=OVMF(), boot=Firmware(), memory="256M", accel="tcg")
    with vm.start() as running:
        held = Path(running._engine.supplied["firmware.vars"])
        assert held.is_relative_to(running._engine.directory)
    assert not held.exists()


@pytest.mark.parametrize("ovmf", [OVMF(), OVMF(secure_boot=True)], ids=["plain", "no-keys"])
def test_an_unsigned_loader_runs_without_keys(ovmf: OVMF, loader: Disk) -> None:
    with booting(ovmf, disks=[loader]) as running:
        running.wait_for(serial=r'BdsDxe: starting Boot\d+ "UEFI', timeout=LIMIT)
        running.wait_for(serial="iPXE initialising devices", timeout=LIMIT)


def test_secure_boot_refuses_an_unsigned_loader(loader: Disk) -> None:
    with booting(OVMF(secure_boot=True, enrolled=True), disks=[loader]) as running:
        running.wait_for(
            serial=r'BdsDxe: failed to load Boot\d+ "UEFI [^\n]*: Access Denied\n', timeout=LIMIT
        )
        running.wait_for(serial="No bootable option or device was found", timeout=LIMIT)
        assert "iPXE" not in running.console.text


def test_the_shell_is_on_the_screen() -> None:
    if not ocr.installed():
        pytest.skip("the package tesseract-ocr is not installed")
    with booting(OVMF(), video=StdVga()) as running:
        running.wait_for(text=r"UEFI Interactive Shell", timeout=LIMIT)
        assert "EDK II" in running.screen_text()
