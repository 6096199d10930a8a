"""What QEMU is given for whole machines, against `tests/golden/vm.txt`.

``python tests/test_vm_golden.py`` writes the file anew; read the difference.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from uuid import UUID

import pytest

from pyvirt import (
    CDROM,
    CPU,
    OVMF,
    VM,
    Device,
    Disk,
    Firmware,
    Guest,
    IOThread,
    Kernel,
    Machine,
    Memory,
    Nic,
    Tap,
    User,
)
from pyvirt.devices import Rng, Seed, Serial, StdVga, Tpm, Unix, UsbTablet, Vnc
from pyvirt.machine import NumaNode, Smbios, System
from pyvirt.nic import Forward

FILE = Path(__file__).with_name("golden") / "vm.txt"

MACHINES = {
    "nothing said": VM(),
    "none": VM(machine="none"),
    "microvm": VM(machine="microvm", disks=[Disk("a.img", format="raw")], nics=[Nic()]),
    "a server": VM(
        name="server",
        uuid=UUID(int=7),
        machine="q35",
        cpus=CPU(4, "Skylake-Server", flags=["-hle"], sockets=1, cores=2, threads=2),
        memory="4G",
        smbios=Smbios(system=System(serial="7")),
        disks=[Disk("root.qcow2", bootindex=0, iothread="io0"), Disk("data.qcow2", bus="scsi")],
        nics=[Nic(Tap(bridge="br0"), queues=2), Nic(User(forwards=[Forward(2222, 22)]))],
        iothreads=[IOThread("io0")],
        devices=[Rng(), Seed(user_data={"users": ["me"]})],
    ),
    "a desktop": VM(
        name="desktop",
        machine="pc",
        memory="2G",
        disks=[Disk("c.qcow2", bus="ide"), CDROM("setup.iso", bus="ide", bootindex=0)],
        nics=[Nic(model="e1000")],
        video=StdVga(),
        displays=[Vnc(path="/run/vnc.sock")],
        devices=[UsbTablet()],
    ),
    "UEFI and TPM": VM(
        firmware=OVMF(secure_boot=True), boot=Firmware(), devices=[Tpm()], agents=["qga"]
    ),
    "NUMA": VM(
        cpus=CPU(4, sockets=2),
        memory=Memory(
            nodes=[NumaNode("1G", cpus=[0, 1], distances={1: 20}), NumaNode("1G", cpus=[2, 3])]
        ),
    ),
    "its own kernel": VM(
        boot=Kernel("vmlinuz", "initrd.img", append="console=ttyS0, quiet"),
        serials=[Serial(Unix("/run/console.sock"))],
        machine=Machine("q35", hotplug_ports=0),
    ),
    "TPM without UEFI": VM(memory="256M", devices=[Tpm()]),
    "anything": VM(
        boot=Guest(append="debug"),
        devices=[Device("edu", {"dma_mask": 255}), Device("pci-testdev")],
        arguments=["-d", "unimp"],
    ),
}


def text(name: str) -> str:
    vm = MACHINES[name]
    lines = [f"{reason.field}: {shlex.join(reason.words)}" for reason in vm.explain()]
    needs = [f"needs {type(need).__name__} {need.name}" for need in vm.plan().needs]
    return "\n    ".join([f"{name}:", *lines, *needs]) + "\n"


def golden() -> dict[str, str]:
    blocks = FILE.read_text().split("\n\n")
    return {block.split(":\n")[0].lstrip("\n"): block.strip("\n") + "\n" for block in blocks}


@pytest.mark.parametrize("name", MACHINES)
def test_the_options_of(name: str) -> None:
    assert text(name) == golden()[name]


@pytest.mark.parametrize("name", MACHINES)
def test_the_command_line_is_what_is_explained(name: str) -> None:
    vm = MACHINES[name]
    words = [word for reason in vm.explain() for word in reason.words]
    assert shlex.split(vm.command_line()) == [vm.binary, *words, *vm.arguments]


@pytest.mark.parametrize("name", MACHINES)
def test_every_option_has_a_field_that_made_it(name: str) -> None:
    assert all(reason.field for reason in MACHINES[name].explain())


if __name__ == "__main__":
    FILE.write_text("\n".join(text(name) for name in MACHINES))
