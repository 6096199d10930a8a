"""Options as a VM, and what ``pyvirt command-line`` prints of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from cli_tool import document, pyvirt
from hypothesis import given
from hypothesis import strategies as st

from pyvirt import (
    CDROM,
    CPU,
    VM,
    Device,
    Disk,
    Guest,
    Kernel,
    Memory,
    Nic,
    SpecError,
    Tap,
    Throttle,
    User,
)
from pyvirt.cli.command_line import command, lines
from pyvirt.cli.describe import vm_of
from pyvirt.cli.words import literal, table
from pyvirt.devices import Rng
from pyvirt.files import kinds
from pyvirt.nic import Forward

DISK = kinds.item(kinds.hints(VM)["disks"])


def described(*words: str, file: str | None = None) -> VM:
    """The VM that the words of a command line describe."""
    given = command.make_context("command-line", list(words)).params
    for name in ("file", "explain", "save"):
        given.pop(name)
    return vm_of(file, given)


@pytest.mark.parametrize(
    ("words", "vm"),
    [
        ([], VM()),
        (["--name", "a b", "--machine", "pc", "-m", "1G", "--accel", "tcg"],
         VM(name="a b", machine="pc", memory="1G", accel="tcg")),
        (["-c", "2", "--cpu", "max"], VM(cpus=CPU(2, "max"))),
        (["--disk", "a.qcow2"], VM(disks=[Disk("a.qcow2")])),
        (["--disk", "a,,b.img,format=raw,bus=scsi,wwn=0x5000,readonly=on,opt_io_size=64K"],
         VM(disks=[Disk("a,b.img", "raw", bus="scsi", wwn=0x5000, readonly=True,
                        opt_io_size="64K")])),
        (["--disk", "a,backing=None"], VM(disks=[Disk("a", backing=None)])),
        (["--disk", "a,throttle.bps_total=1M,cache=none,aio=native"],
         VM(disks=[Disk("a", throttle=Throttle(bps_total="1M"), cache="none", aio="native")])),
        (["--cdrom", "a.iso,bus=scsi", "--disk", "b"],
         VM(disks=[Disk("b"), CDROM("a.iso", bus="scsi")])),
        (["--nic", "e1000,mac=52:54:00:00:00:01"],
         VM(nics=[Nic(model="e1000", mac="52:54:00:00:00:01")])),
        (["--nic", "backend=Tap,backend.ifname=tap0"], VM(nics=[Nic(Tap(ifname="tap0"))])),
        (["--forward", "8080:80", "--forward", "53/udp"],
         VM(nics=[Nic(User(forwards=[Forward(8080, 80), Forward(53, 53, "udp")]))])),
        (["--device", "Rng,max-bytes=1024,period=1000"],
         VM(devices=[Rng(max_bytes=1024, period=1000)])),
        (["--device", "edu,dma_mask=4095,id=e"],
         VM(devices=[Device("edu", {"dma_mask": 4095}, id="e")])),
        (["--binary", "env", "--package", "p", "--module", "m", "--append", "quiet"],
         VM(boot=Guest(binaries=["env"], packages=["p"], modules=["m"], append="quiet"))),
        (["--kernel", "k", "--initrd", "i", "--append", "w"],
         VM(boot=Kernel("k", "i", append="w"))),
        (["--qemu", "/opt/qemu"], VM(binary="/opt/qemu")),
    ],
)  # fmt: skip
def test_options_are_fields(words: list[str], vm: VM) -> None:
    assert described(*words) == vm


def test_options_are_put_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vm.toml"
    VM(memory="256M", cpus=CPU(2, "max"), nics=[Nic(User(restrict=True))],
       boot=Guest(binaries=["env"])).save(path)  # fmt: skip
    words = ["--memory", "1G", "-c", "4", "--binary", "cat", "--forward", "80:80", "--disk", "a"]
    assert described(*words, file=str(path)) == VM(
        memory=Memory("1G"),
        cpus=CPU(4, "max"),
        nics=[Nic(User(restrict=True, forwards=[Forward(80, 80)]))],
        boot=Guest(binaries=["env", "cat"]),
        disks=[Disk("a")],
    )


def test_files_for_the_guest(tmp_path: Path) -> None:
    assert described("--file", f"/opt/x={tmp_path}") == VM(boot=Guest(files={"/opt/x": tmp_path}))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_path_is_written_with_doubled_commas(path: str) -> None:
    # With an equals sign in it, what has no name would be taken for one.
    word = f"{'file=' if '=' in path else ''}{path.replace(',', ',,')}"
    if path.startswith(",") or path.endswith(","):
        return  # three commas in a row: it is not said which two belong together
    assert table(word, "file", DISK, "disks[0]") == {"file": path}


def test_a_word_twice_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        table("a,bus=ide,bus=scsi", "file", DISK, "disks[0]")
    assert str(caught.value) == "disks[0].bus must be given once, got 'scsi'"


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", True), ("OFF", False), ("12", 12), ("-0x10", -16), ("1.5", "1.5"), ("", "")],
)
def test_texts_in_their_likely_meaning(text: str, value: Any) -> None:
    assert literal(text) == value


# What is printed ---------------------------------------------------------------------------------


def test_the_line_is_what_the_library_says() -> None:
    vm = VM(name="a b", disks=[Disk("it's.qcow2")], arguments=["-global", "x=y z"])
    assert shlex.split(lines(vm).replace("\\\n", " ")) == vm.argv()


def test_a_description_file_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "vm.toml"
    path.write_text('name = "from the file"\n[[disks]]\nfile = "a.qcow2"\n')
    said = pyvirt("command-line", path)
    vm = VM(name="from the file", disks=[Disk("a.qcow2")])
    assert shlex.split(said.stdout.replace("\\\n", " ")) == vm.argv()


def test_explained() -> None:
    said = pyvirt("command-line", "--explain", "--disk", "a.qcow2")
    assert [line for line in said.stdout.splitlines() if line.startswith("disks[0]  ")]


def test_as_a_document() -> None:
    made = document("command-line", "--json", "--disk", "a.qcow2")
    assert made["argv"] == VM(disks=[Disk("a.qcow2")]).argv()
    assert made["options"] == [
        {"field": one.field, "words": list(one.words)}
        for one in VM(disks=[Disk("a.qcow2")]).explain()
    ]
    assert {"type": "Socketpair", "name": "monitor"} in made["needs"]


def test_saved(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    pyvirt("command-line", "--save", path, "--disk", "a.qcow2,bus=scsi")
    assert VM.load(path) == VM(disks=[Disk("a.qcow2", bus="scsi")])
