"""What a guest on pc and q35 does with the devices that are neither disks nor network cards."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, RunningVM
from pyvirt.devices import (
    Balloon,
    FwCfg,
    Ivshmem,
    Plan9,
    Pvpanic,
    Rng,
    Seed,
    SmartCardReader,
    Tpm,
    UsbAudio,
    UsbHub,
    UsbKeyboard,
    UsbMouse,
    UsbTablet,
    UsbWacomTablet,
    VirtioFs,
    VirtioKeyboard,
    VirtioMouse,
    VirtioTablet,
    Vmgenid,
    Vsock,
    Watchdog,
)
from pyvirt.qemu.part import Part

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

SIZE = 1 << 20
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
HAS_VIRTIOFSD = VIRTIOFSD.exists() or shutil.which("virtiofsd") is not None
HAS_SWTPM = shutil.which("swtpm") is not None

#: USB devices, with what they call themselves.
USB = {
    "QEMU USB Tablet": UsbTablet(),
    "QEMU USB Mouse": UsbMouse(),
    "QEMU USB Keyboard": UsbKeyboard(),
    "QEMU USB Hub": UsbHub(),
    "Wacom PenPartner": UsbWacomTablet(),
    "QEMU USB Audio": UsbAudio(),
    "QEMU USB CCID": SmartCardReader(),
}
POINTERS = (VirtioKeyboard(), VirtioMouse(), VirtioTablet())

EV_ABS, ABS_X, ABS_Y = 3, 0, 1

MOUNT_9P = "mkdir -p /papers && mount -t 9p -o trans=virtio,version=9p2000.L papers /papers"


def says(guest: RunningVM, command: str) -> str:
    """What a command prints in the guest."""
    return guest.run(command, timeout=60).check().stdout.strip()


def settles(guest: RunningVM, condition: str) -> None:
    """Wait until a shell's condition holds in the guest."""
    guest.run(f"until {condition}; do sleep 0.1; done", timeout=60).check()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the host's, with a file in it and an image to share as memory."""
    path = tmp_path_factory.mktemp("host")
    (path / "shared").mkdir()
    (path / "shared" / "letter").write_text("from the host")
    (path / "memory").write_bytes(struct.pack("<I", 0x12345678).ljust(SIZE, b"\0"))
    return path


@pytest.fixture(scope="module")
def q35(folder: Path) -> Iterator[RunningVM]:
    parts: list[Part] = [Vmgenid(), Pvpanic(), Watchdog("reset"), *USB.values(), *POINTERS]
    parts.append(Ivshmem(SIZE, path=folder / "memory"))
    parts += [Tpm()] if HAS_SWTPM else []
    parts += [VirtioFs(folder / "shared", "papers")] if HAS_VIRTIOFSD else []
    with VM(accel="tcg", devices=parts).start() as running:
        running.wait_for(agent=True)
        yield running


@pytest.fixture(scope="module")
def pc(folder: Path) -> Iterator[RunningVM]:
    parts: list[Part] = [Pvpanic("pvpanic"), Watchdog("poweroff", model="ib700"), Rng(), Balloon()]
    parts += [FwCfg("opt/org.example/text", "a,b=c d"), Seed({"hostname": "seeded"})]
    parts.append(Plan9(folder / "shared", "papers", security_model="none"))
    parts += [Tpm(model="tpm-tis", state=folder / "tpm")] if HAS_SWTPM else []
    (folder / "tpm").mkdir()
    with VM(machine="pc", accel="tcg", devices=parts).start() as running:
        running.wait_for(agent=True)
        yield running


# On q35 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", USB)
def test_usb_devices_are_enumerated(q35: RunningVM, product: str) -> None:
    settles(q35, f"grep -qx '{product}' /sys/bus/usb/devices/*/product")


def test_pointers_and_keyboards_have_drivers(q35: RunningVM) -> None:
    listing = "/proc/bus/input/devices"
    for name in ("USB Tablet", "USB Mouse", "USB Keyboard"):
        settles(q35, f"grep -q 'QEMU {name}' {listing}")
    for name in ("Keyboard", "Mouse", "Tablet"):
        settles(q35, f"grep -q 'QEMU Virtio {name}' {listing}")


def test_the_pointer_moves_in_the_guest(q35: RunningVM) -> None:
    with q35.spawn("for e in /dev/input/event*; do cat $e & done; wait") as process:
        opened = "ls -l /proc/[0-9]*/fd 2>&1 | grep -c /dev/input/event"
        settles(q35, f"[ $({opened}) = $(ls /dev/input/event* | wc -l) ]")
        q35.point(0.25, 0.75)
        moved = process.stdout.read(2 * 24)  # struct input_event: time, type, code, value
        process.kill()
    kinds = {struct.unpack_from("<HH", moved, at + 16) for at in (0, 24)}
    assert kinds == {(EV_ABS, ABS_X), (EV_ABS, ABS_Y)}


def test_memory_is_shared_with_the_host(q35: RunningVM, folder: Path) -> None:
    find = "grep -l 0x1110 /sys/bus/pci/devices/*/device | cut -d/ -f6"
    bar = says(q35, f"sed -n 3p /sys/bus/pci/devices/$({find})/resource").split()
    start, end = int(bar[0], 16), int(bar[1], 16)
    assert end - start + 1 == SIZE
    assert says(q35, f"devmem {start:#x} 32") == "0x12345678"
    says(q35, f"devmem {start + SIZE - 4:#x} 32 0xCAFE0042")
    assert (folder / "memory").read_bytes()[-4:] == struct.pack("<I", 0xCAFE0042)


@pytest.mark.skipif(not HAS_SWTPM, reason="the package swtpm is not installed")
def test_a_tpm_has_measured_the_boot(q35: RunningVM) -> None:
    settles(q35, "[ -c /dev/tpm0 ]")
    assert says(q35, "cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
    register = says(q35, "cat /sys/class/tpm/tpm0/pcr-sha256/0")
    assert len(register) == 64
    assert int(register, 16) != 0


@pytest.mark.skipif(not HAS_VIRTIOFSD, reason="there is no virtiofsd")
def test_a_folder_is_shared_by_virtiofsd(q35: RunningVM, folder: Path) -> None:
    says(q35, "mkdir -p /papers && mount -t virtiofs papers /papers")
    assert says(q35, "cat /papers/letter") == "from the host"
    says(q35, "echo answer > /papers/answer && umount /papers")
    assert (folder / "shared/answer").read_text() == "answer\n"


def test_the_generation_has_a_driver(q35: RunningVM) -> None:
    settles(q35, "[ -e /sys/bus/acpi/drivers/vmgenid/QEMUVGID:00 ]")
    generation = q35.qmp.query_vm_generation_id()["guid"]
    assert len(generation) == 36


def test_pvpanic_offers_what_it_can_tell(q35: RunningVM) -> None:
    capability = "/sys/bus/pci/drivers/pvpanic-pci/*/capability"
    settles(q35, f"[ -e {capability} ]")
    assert int(says(q35, f"cat {capability}"), 16) & 1  # that it panicked


def test_sockets_between_guest_and_host(q35: RunningVM) -> None:
    if not Path("/dev/vhost-vsock").exists():
        pytest.skip("this host has no /dev/vhost-vsock")
    name = q35.plug(Vsock(4242))
    settles(q35, "[ -c /dev/vsock ]")
    q35.unplug(name)


def test_a_starved_watchdog_resets_the_guest(q35: RunningVM) -> None:
    """The guest answers again after it; so the tests before have had theirs."""
    assert says(q35, "cat /sys/class/watchdog/watchdog0/identity") == "i6300ESB timer"
    with q35.events("WATCHDOG", "RESET") as events:
        says(q35, "watchdog -T 2 -t 60 /dev/watchdog")  # bites after 2 seconds, is fed after 60
        heard = [events.get(60) for _ in range(2)]
    assert {event.name: event.data.get("action") for event in heard}["WATCHDOG"] == "reset"
    q35.wait_for(agent=True)
    assert float(says(q35, "cut -d ' ' -f 1 /proc/uptime")) < 60


def test_a_panic_ends_it_and_is_its_reason(q35: RunningVM) -> None:
    q35.spawn("sleep 0.2; echo c > /proc/sysrq-trigger")
    end = q35.wait(60)
    assert end.reason == "guest-panic"
    assert "Kernel panic" in q35.console.text


# On pc -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_SWTPM, reason="the package swtpm is not installed")
def test_an_older_tpm_interface_and_its_state(pc: RunningVM, folder: Path) -> None:
    settles(pc, "[ -c /dev/tpm0 ]")
    assert says(pc, "cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
    assert list((folder / "tpm").iterdir()) != []


def test_folders_settings_and_seeds_on_pc(pc: RunningVM) -> None:
    says(pc, MOUNT_9P)
    assert says(pc, "cat /papers/letter") == "from the host"
    path = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.example/text/raw"
    assert says(pc, f"modprobe -a qemu_fw_cfg; cat {path}") == "a,b=c d"
    settles(pc, "[ -b /dev/vda ]")
    says(pc, "mkdir -p /seed && mount -t iso9660 -o ro /dev/vda /seed")
    assert "seeded" in says(pc, "cat /seed/user-data")


def test_randomness_and_memory_on_pc(pc: RunningVM) -> None:
    settles(pc, "grep -q virtio_rng /sys/class/misc/hw_random/rng_available")
    assert says(pc, "head -c 100 /dev/hwrng | wc -c") == "100"
    assert pc.balloon("400M", timeout=60) == 400 << 20


def test_pvpanic_on_isa_has_a_driver(pc: RunningVM) -> None:
    settles(pc, "ls /sys/bus/platform/drivers/pvpanic-mmio/QEMU0001:00")


def test_a_watchdog_that_powers_off_is_the_reason(pc: RunningVM) -> None:
    says(pc, "modprobe ib700wdt && [ -c /dev/watchdog ]")
    says(pc, "watchdog -T 2 -t 60 /dev/watchdog")
    end = pc.wait(60)
    assert (end.reason, end.process.code) == ("watchdog", 0)
