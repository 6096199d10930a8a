"""What Linux in a guest makes of the devices: one default guest, booted with all of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Guest, RunningVM
from pyvirt.devices import (
    Balloon,
    FwCfg,
    Plan9,
    Rng,
    Seed,
    Serial,
    UsbTablet,
    VirtioConsole,
    VirtioKeyboard,
    Watchdog,
)

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

MODULES = ["9p", "9pnet_virtio", "qemu_fw_cfg", "isofs", "virtio_input", "evdev"]
USER_DATA = {"hostname": "a, b", "users": ["é"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("shared, with a comma")
    Path(path, "from the host").write_text("hello")
    return path


@pytest.fixture(scope="module")
def inside(folder) -> Iterator[RunningVM]:
    devices = [
        Rng(),
        Watchdog("pause"),
        FwCfg("opt/org.example/text", "a,b=c d"),
        Plan9(folder, "papers", security_model="none"),
        Seed(USER_DATA, meta_data={"local-hostname": "a"}),
        Balloon(guest_stats_polling_interval=1),
        VirtioConsole(),
        VirtioKeyboard(),
        UsbTablet(),
    ]
    serials = [Serial(), Serial(model="pci-serial")]
    vm = VM(boot=Guest(modules=MODULES), serials=serials, devices=devices, memory="256M")
    with vm.start() as running:
        running.wait_for(agent=True)
        yield running


def says(guest: RunningVM, command: str) -> str:
    """What a command prints in the guest."""
    return str(guest.run(command, check=True).stdout)


def test_the_seed_is_mounted_and_read(inside):
    says(inside, "until [ -e /dev/vda ]; do sleep 0.1; done")
    says(inside, "mkdir -p /seed && mount -t iso9660 -o ro /dev/vda /seed")
    head, _, body = says(inside, "cat /seed/user-data").partition("\n")
    assert (head, json.loads(body)) == ("#cloud-config", USER_DATA)
    assert json.loads(says(inside, "cat /seed/meta-data"))["local-hostname"] == "a"
    assert says(inside, "ls -l /seed/user-data").split()[-4:-1] == ["Jan", "1", "2000"]


def test_a_folder_is_shared_both_ways(inside, folder):
    says(inside, "mkdir -p /papers && mount -t 9p -o trans=virtio,version=9p2000.L papers /papers")
    assert says(inside, "cat '/papers/from the host'") == "hello"
    says(inside, "echo -n back > '/papers/from the guest'")
    assert Path(folder, "from the guest").read_text() == "back"


def test_firmware_configuration_is_readable(inside):
    path = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.example/text/raw"
    assert says(inside, f"cat {path}") == "a,b=c d"


def test_randomness_comes_from_the_host(inside):
    names = says(inside, "cat /sys/class/misc/hw_random/rng_available")
    assert "virtio_rng.0" in names
    assert says(inside, "head -c 100 /dev/hwrng | wc -c").strip() == "100"


def test_consoles_are_captured(inside):
    says(inside, "echo 'from hvc0' > /dev/hvc0; echo 'from ttyS1' > /dev/ttyS1")
    consoles = {console.name: console for console in inside.consoles.values()}
    assert "from hvc0" in consoles["console0"].text
    assert "from ttyS1" in consoles["serial1"].text


def test_a_pointer_and_a_keyboard_are_seen(inside):
    command = "cat /proc/bus/input/devices"
    says(inside, f"until {command} | grep -q Tablet; do sleep 0.1; done")
    devices = says(inside, command)
    assert "QEMU USB Tablet" in devices
    assert "QEMU Virtio Keyboard" in devices


def test_the_balloon_tells_of_memory(inside):
    path = {"path": "/machine/peripheral/balloon0", "property": "guest-stats"}
    while (found := inside.qmp.qom_get(**path))["last-update"] == 0:
        says(inside, "sleep 0.2")
    total = int(says(inside, "grep MemTotal /proc/meminfo").split()[1]) * 1024
    assert found["stats"]["stat-total-memory"] == total


def test_a_starved_watchdog_stops_the_guest(inside):  # and so it is the last
    assert says(inside, "ls /dev/watchdog") == "/dev/watchdog\n"
    says(inside, "watchdog -T 2 -t 60 /dev/watchdog")  # bites after 2 seconds, is fed after 60
    while inside.qmp.query_status()["status"] == "running":
        time.sleep(0.1)
    assert inside.qmp.query_status()["status"] == "watchdog"
