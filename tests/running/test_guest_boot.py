"""The default guest, really booted: what was described is there before it answers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from support.kernels import kernel
from support.qemu import BINARY, needs_qemu

from pyvirt import VM, Disk, Guest, Nic, RunningVM
from pyvirt.guest import cmdline
from pyvirt.running.guest import build

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

SIZE = 8 << 20
BUSES = ["virtio", "scsi", "nvme", "sata", "usb"]


def test_qemu_boots_it_without_pyvirt() -> None:
    kernel()
    built = build(Guest(init="echo 'the guest' is up > /dev/ttyS0; poweroff -f"))
    command = [
        BINARY, "-machine", "q35", "-nodefaults", "-accel", "tcg,tb-size=128", "-m", "256M",
        "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", built.kernel,
        "-initrd", built.initramfs, "-append", " ".join((built.append, *cmdline.timer("tcg"))),
    ]  # fmt: skip
    told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
    said = told.stdout.decode().splitlines()
    assert said[0] == "the guest is up"
    assert [line.split("] ")[-1] for line in said[1:]] == ["reboot: Power down"]


@pytest.fixture(scope="module")
def dressed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVM]:
    """A guest with additions of all kinds, and a disk on every bus."""
    kernel()
    images = []
    for bus in BUSES:
        image = tmp_path_factory.mktemp("disks") / f"{bus}.raw"
        with image.open("wb") as file:
            file.truncate(SIZE)
        images.append(Disk(image, format="raw", bus=bus))
    guest = Guest(
        files={"/srv/hello": b"from the host", "/etc/hostname": b"dressed\n"},
        binaries=["tar"],
        modules=["dummy"],
        init="sleep 0.2; cat /proc/partitions > /root/partitions; exit 0",
        append="pyvirt.test=1",
    )
    nics = [Nic(), Nic(model="e1000")]
    with VM(boot=guest, memory="256M", disks=images, nics=nics).start() as vm:
        yield vm


def told(guest: RunningVM, command: str) -> str:
    return guest.run(command).check().stdout


def settles(guest: RunningVM, command: str, wanted: str) -> str:
    """What *command* prints once *wanted* is in it, or after 20 seconds."""
    shown = ""
    for _ in range(100):
        shown = guest.run(command).stdout
        if wanted in shown:
            break
        time.sleep(0.2)
    return shown


def test_its_files_and_its_name_are_there(dressed: RunningVM) -> None:
    assert told(dressed, "cat /srv/hello; hostname") == "from the hostdressed\n"
    assert "pyvirt.test=1" in told(dressed, "cat /proc/cmdline")
    assert told(dressed, "uname -r").strip() == kernel().release


def test_its_script_ran_to_the_end_after_the_drivers(dressed: RunningVM) -> None:
    assert "vda" in told(dressed, "cat /root/partitions")


def test_its_program_runs_with_its_libraries_and_before_busybox(dressed: RunningVM) -> None:
    assert "GNU tar" in told(dressed, "tar --version")


def test_a_module_is_loaded_without_hardware(dressed: RunningVM) -> None:
    assert "dummy " in told(dressed, "lsmod")


def test_every_bus_shows_its_disk(dressed: RunningVM) -> None:
    sized = rf"grep -c ' {SIZE // 1024} ' /proc/partitions; true"
    assert settles(dressed, sized, str(len(BUSES))).strip() == str(len(BUSES))


def test_every_card_has_its_address_before_the_guest_answers(dressed: RunningVM) -> None:
    shown = told(dressed, "ip -4 addr; ip route; cat /etc/resolv.conf; ls /sys/class/net")
    assert shown.count("inet 10.0.2.15/24") == 2
    assert "default via 10.0.2.2" in shown
    assert "nameserver 10.0.2.3" in shown


def test_file_systems_come_when_they_are_mounted(dressed: RunningVM) -> None:
    told(dressed, "mke2fs -q /dev/vda && mount -t ext2 /dev/vda /mnt && echo x > /mnt/x")
    assert "ext2" in told(dressed, "grep /mnt /proc/mounts; umount /mnt")


def test_modprobe_loads_what_sleeps_and_names_what_is_not_there(dressed: RunningVM) -> None:
    told(dressed, "/sbin/modprobe pcspkr && /sbin/modprobe -r pcspkr && modprobe pcspkr")
    failed = dressed.run("/sbin/modprobe no-such-module")
    assert failed.exit_code == 1
    assert failed.stderr == "modprobe: no-such-module: No such file or directory\n"


def test_nothing_is_loaded_twice_or_in_vain(dressed: RunningVM) -> None:
    loaded = told(dressed, "cut -d' ' -f1 /proc/modules").split()
    assert "psmouse" not in loaded
    assert "ahci" in loaded, "a SATA disk is there"
    assert "pyvirt: cannot" not in told(dressed, "dmesg")


def test_a_plugged_card_gets_its_driver_and_asks_for_an_address(dressed: RunningVM) -> None:
    dressed.plug(Nic(model="e1000e"))
    assert "e1000e" in settles(dressed, "lsmod", "e1000e")
    shown = settles(dressed, "ip -4 addr show eth2", "inet ")
    assert "inet 10.0.2.15/24" in shown


def test_a_failed_script_does_not_keep_the_guest_from_answering() -> None:
    with VM(boot=Guest(init="exit 3"), memory="256M").start() as vm:
        assert vm.run("echo up").stdout == "up\n"


def test_an_empty_sata_controller_is_left_alone(guest: RunningVM) -> None:
    # The shared guest has a CD-ROM drive on it, so it is not empty there.
    assert "ahci" in guest.run("lsmod").stdout
    with VM(memory="256M").start() as vm:
        assert "ahci" not in vm.run("lsmod").stdout
