"""A program that writes to a disk, tried in a guest that has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyvirt import VM, Disk


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(16 << 20))
    return path


def test_a_plugged_disk_appears(pyvirt_guest, image):
    name = pyvirt_guest.plug(Disk(image, format="raw"))
    assert name in pyvirt_guest.parts
    pyvirt_guest.run("until [ -b /dev/vda ]; do sleep 0.1; done", timeout=60, check=True)
    pyvirt_guest.run("printf hello > /dev/vda && sync", check=True)
    assert image.read_bytes().startswith(b"hello")


def test_the_next_test_has_no_disk_and_no_files(pyvirt_guest, pyvirt_directory):
    assert pyvirt_guest.run("ls /sys/block").stdout == ""
    assert pyvirt_guest.run(["ls", pyvirt_directory]).stdout == ""
    pyvirt_guest.write_text(f"{pyvirt_directory}/words", "gone after this test")


@pytest.mark.pyvirt_fresh
def test_what_stays_behind_needs_a_guest_of_its_own(pyvirt_guest):
    pyvirt_guest.run("sysctl -w vm.swappiness=1", check=True)
    assert pyvirt_guest.run("cat /proc/sys/vm/swappiness").stdout == "1\n"


def test_a_machine_of_another_kind(pyvirt_vm):
    running = pyvirt_vm(VM(memory="256M", machine="pc"))
    assert "PIIX" in running.run("cat /sys/class/dmi/id/product_name", check=True).stdout


@pytest.mark.needs_kvm
def test_speed(pyvirt_vm):
    assert pyvirt_vm(memory="256M").accelerator.name == "kvm"
