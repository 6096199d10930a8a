"""What a real guest finds: every card and disk of a full machine, and what is plugged later."""

from __future__ import annotations

import pytest
from support.qemu import needs_qemu

from pyvirt import CPU, VM, Disk, Machine, Memory, Nic, RunningVM
from pyvirt.machine import DIMM, VirtioMem

pytestmark = needs_qemu

M = 1 << 20


def listed(guest: RunningVM, command: str) -> set[str]:
    return set(guest.run(command, timeout=60).check().stdout.split())


@pytest.mark.parametrize("board", ["pc", "q35"])
def test_a_guest_drives_32_cards_and_40_disks(board, tmp_path):
    images = []
    for number in range(40):
        images.append(tmp_path / f"{number}.raw")
        images[-1].write_bytes(b"")
        with images[-1].open("r+b") as file:
            file.truncate((number + 1) * M)
    disks = [Disk(path, format="raw", serial=f"disk-{n}") for n, path in enumerate(images)]
    nics = [Nic(mac=f"52:54:00:00:00:{n:02x}") for n in range(32)]
    vm = VM(machine=board, memory="512M", disks=disks, nics=nics)
    with vm.start() as guest:
        guest.wait_for(agent=True)
        macs = listed(guest, "cat /sys/class/net/eth*/address")
        show = "for disk in /sys/block/vd*; do echo $(cat $disk/serial):$(cat $disk/size); done"
        found = listed(guest, show)
    assert macs == {nic.mac for nic in nics}
    assert found == {f"disk-{number}:{(number + 1) * 2048}" for number in range(40)}


def test_a_conventional_card_memory_and_processors_come_and_go_while_it_runs():
    vm = VM(
        machine=Machine(hotplug_bridge=True),
        cpus=CPU(1, maximum=3),
        memory=Memory("256M", slots=1, maximum="1G"),
    )
    with vm.start() as guest:
        guest.wait_for(agent=True)
        before = listed(guest, "ls /sys/bus/pci/devices")
        card = guest.plug(Nic(model="e1000"))
        guest.run("until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done", timeout=30).check()
        guest.unplug(card)
        assert listed(guest, "ls /sys/bus/pci/devices") == before

        assert len(guest.plug_cpus(2)) == 2
        online = "until grep -q '^0-2$' /sys/devices/system/cpu/online; do sleep 0.1; done"
        guest.run(online, timeout=30).check()

        blocks = listed(guest, "ls -d /sys/devices/system/memory/memory*")
        guest.plug(DIMM("128M", id="dimm"))
        count = "cd /sys/devices/system/memory; until [ $(ls -d memory* | wc -l) = {} ]; do :; done"
        guest.run(count.format(len(blocks) + 1), timeout=30).check()
        guest.unplug("dimm")
        guest.run(count.format(len(blocks)), timeout=30).check()

        name = guest.plug(VirtioMem("256M"))
        assert guest.resize_memory(name, "128M") == 128 * M
        (held,) = (d["data"]["size"] for d in guest.qmp.query_memory_devices())
        assert held == 128 * M
