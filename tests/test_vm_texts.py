"""Any text and any path in a description arrives at QEMU as it was."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.qemu import needs_qemu

from pyvirt import VM, Disk, Firmware, Kernel, Nic, SpecError, User
from pyvirt.devices import Balloon, FwCfg, Serial, Tpm
from pyvirt.devices import File as FileBackend
from pyvirt.disk import Throttle, ThrottleGroup
from pyvirt.machine import DIMM, Actions, Machine, SeaBIOS
from pyvirt.nic import Forward

TEXTS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40
)
NASTY = "a,b=c,,d \"e' $(f) `g` \\n 日本 \t\n,on"


@given(TEXTS)
@example(NASTY)
def test_a_command_line_survives_a_shell(text: str) -> None:
    vm = VM(name=text, disks=[Disk(f"/d/{text}", format="raw")])
    assert shlex.split(vm.command_line()) == vm.argv()


@given(TEXTS)
@example(NASTY)
def test_a_file_name_is_one_json_string(text: str) -> None:
    [word] = [w for w in VM(disks=[Disk(f"/d/{text}")]).argv() if '"disk0-file"' in w]
    assert json.loads(word)["file"]["filename"] == f"/d/{text}"


@needs_qemu
@pytest.mark.timeout(120)
@settings(max_examples=25, deadline=None)
@given(name=TEXTS, path=TEXTS)
@example(name=NASTY, path="file,with=commas,,and more")
def test_qemu_reads_names_and_paths_as_they_were(name: str, path: str) -> None:
    vm = VM(
        name=name,
        machine=Machine("q35", hotplug_ports=0),
        boot=Firmware(),
        memory="64M",
        accel="tcg",
        paused=True,
        agents=(),
        serials=[Serial(FileBackend("/dev/null", logfile=None))],
        devices=[FwCfg("opt/test", string=path)],
    )
    with vm.start() as running:
        assert running.qmp.query_name() == {"name": name}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"memory": "lots"}, "memory must be bytes or text such as '512M', got 'lots'"),
        ({"cpus": 0}, "cpus must be from 1 to 4096, got 0"),
        ({"accel": "hvf"}, "accel must be one of auto, kvm, tcg, got 'hvf'"),
        ({"name": "a\0b"}, "name must be text without NUL, got 'a\\x00b'"),
        ({"agents": ["ssh"]}, "agents must be one of pyvirt, qga, got 'ssh'"),
        ({"uuid": "7"}, "uuid must be a UUID, got '7'"),
        ({"disks": "data.qcow2"}, "disks must be a list, got 'data.qcow2'"),
        ({"disks": [Disk("a", bootindex=1), Disk("b", bootindex=1)]},
         "disks[1].bootindex must be unique, and disks[0] has the same, got 1"),
        ({"machine": "none", "disks": [Disk("a")]},
         "disks[0].bus is not there on machine none, got 'pci'"),
        ({"memory": "192M", "devices": [Tpm()]},
         "memory.size must be at least 256M for the default guest with a TPM, got 201326592"),
        ({"boot": Kernel("k", "i"), "devices": [Tpm()]},
         "firmware must be OVMF() with a TPM: QEMU puts an initrd over SeaBIOS's tables for it, "
         "got None"),
        ({"cpus": "two"}, "cpus must be a number or CPU(...), got 'two'"),
        ({"disks": ["a.img"]},
         "disks must be disks, such as Disk('data.qcow2') or CDROM(), got 'a.img'"),
        ({"firmware": "ovmf"},
         "firmware must be OVMF(), SeaBIOS(), QBoot() or Rom(...), got 'ovmf'"),
        ({"serials": 3}, "serials must be a list, got 3"),
        ({"disks": [Disk("a", iothread="io7")]},
         "disks[0].iothread must be one of the VM's: none, got 'io7'"),
        ({"disks": [Disk("a", throttle="slow")], "devices": [ThrottleGroup("fast", Throttle())]},
         "disks[0].throttle must be one of the VM's: fast, got 'slow'"),
        ({"devices": [Balloon(), Balloon()]},
         "devices[1] must be the only Balloon, and devices[0] is one, got Balloon()"),
        ({"machine": Machine("microvm", acpi=False)},
         "machine.acpi must be on for the default guest of a microvm, got False"),
        ({"memory": "192M", "devices": [Tpm()], "firmware": SeaBIOS()},
         "memory.size must be at least 256M for the default guest with a TPM, got 201326592"),
        ({"memory": "64M"}, "memory must be at least 128M for the default guest, got 67108864"),
        ({"disks": [Disk("a"), Disk("a", bus="scsi")]},
         "disks[1].file must not be written by two disks, and disks[0] has it, got 'a'"),
        ({"nics": [Nic(User(forwards=[Forward(80, 80)])), Nic(User(forwards=[Forward(80, 8080)]))]},
         "nics[1].forwards[0] must be another port than that of nics[0].forwards[0], "
         "got 'tcp:127.0.0.1:80'"),
        ({"nics": [Nic(model="e1000e", failover_pair_id="nic7")]},
         "nics[0].failover_pair_id must name a card with failover: none is, got 'nic7'"),
        ({"devices": [DIMM("128M")]}, "memory.slots must be at least 1, for devices[0], got 0"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_field(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        VM(**fields)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_what_qemu_does_when_the_guest_ends_is_said() -> None:
    words = VM(actions=Actions(reboot="shutdown", panic="pause")).argv()
    assert [words[i + 1] for i, word in enumerate(words) if word == "-action"] == [
        "reboot=shutdown",
        "panic=pause",
    ]
