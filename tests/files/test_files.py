"""Descriptions as files: what is written is read back equal, and faults say where they are."""

from __future__ import annotations

import json
import stat
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.descriptions import CORPUS, classes, parts

from pyvirt import VM, Device, Disk, Guest, SpecError
from pyvirt.disk import Luks, Secret
from pyvirt.files import described, dumps, kinds, loads, toml
from pyvirt.files.read import build
from pyvirt.files.write import table

#: Parts that a machine has as often as one likes, and that need nothing else.
FREE = [
    part for part in parts()
    if part.prefix in ("rng", "usb", "tablet", "keyboard", "hub", "vsock") and part.id is None
]  # fmt: skip


@pytest.mark.parametrize("form", ["toml", "json"])
@pytest.mark.parametrize(("line", "names"), CORPUS, ids=[line[:70] for line, _ in CORPUS])
def test_every_description_is_read_back_as_it_was(
    line: str, names: dict[str, Any], form: str
) -> None:
    value = eval(line, names)
    written = table(value)
    text = json.dumps(written) if form == "json" else toml.text(written)
    read = json.loads(text) if form == "json" else tomllib.loads(text)
    assert read == written
    assert build(type(value), read, "") == value


@given(
    name=st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=30),
    memory=st.integers(1 << 14, 1 << 20).map(lambda pages: pages * 8192),
    chosen=st.lists(st.sampled_from(FREE), max_size=4),
    properties=st.dictionaries(
        st.text(min_size=1).filter(lambda key: key not in ("id", "driver", "pyvirt")),
        st.recursive(
            st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
        max_size=3,
    ),
    files=st.dictionaries(
        st.sampled_from(["/etc/a", "/opt/b c", "/x,y"]), st.binary() | st.just(Path("/etc/x"))
    ),
)
def test_any_vm_is_read_back_as_it_was(
    name: str, memory: int, chosen: list[Any], properties: dict[str, Any], files: dict[str, Any]
) -> None:
    device = Device("edu", {k: v for k, v in properties.items() if k not in Device.PLACES})
    vm = VM(name=name, memory=memory, devices=[*chosen, device], boot=Guest(files=files))
    assert loads(dumps(vm, "json"), "json") == vm
    if any("\ud800" <= one <= "\udfff" for one in letters_of(vm)):
        with pytest.raises(SpecError, match="is no valid Unicode"):
            dumps(vm, "toml")
    else:
        assert loads(dumps(vm, "toml")) == vm


def letters_of(vm: VM) -> str:
    """All characters of its texts."""
    return json.dumps(table(vm), ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "field", "sentence"),
    [
        ('x = 1', "x", "x is no field of VM, got 1"),
        ('memry = "1G"', "memry", "memry is no field of VM (did you mean 'memory'?), got '1G'"),
        ('[[disks]]\nfile = "a"\nbuss = 1', "disks[0].buss",
         "disks[0].buss is no field of Disk (did you mean 'bus'?), got 1"),
        ('[[disks]]\nfile = "a"\n[[disks]]\nfile = "a"\nbus = "pci"', "disks[1].bus",
         "disks[1].bus must be one of virtio, nvme, scsi, ide, sata, usb, sd, floppy, got 'pci'"),
        ('[[disks]]\nbus = "ide"', "disks[0].file",
         "disks[0].file must be given for Disk, got None"),
        ('[[devices]]\ntype = "Rgn"', "devices[0].type",
         "devices[0].type is unknown here (did you mean 'Rng'?), got 'Rgn'"),
        ('[[nics]]\nbackend = { type = "user" }', "nics[0].backend.type",
         "nics[0].backend.type is unknown here (did you mean 'User'?), got 'user'"),
        ('[boot]\nkernel = "x"', "boot.type",
         "boot.type must be one of Firmware, Guest, Kernel, got None"),
        ('cpus = { count = 2, pins = { a = [1] } }', "cpus.pins",
         "cpus.pins must have numbers as keys, got 'a'"),
        ('[boot]\ntype = "Guest"\nfiles = { "/a" = { base64 = "?" } }',
         "boot.files['/a'].base64", "boot.files['/a'].base64 must be base64, got '?'"),
        ('disks = 3', "disks", "disks must be a list, got 3"),
        ('x', "toml",
         "toml cannot be read (Expected '=' after a key in a key/value pair (at end of document)),"
         " got 'x'"),
    ],
)  # fmt: skip
def test_a_fault_says_where_in_the_file(text: str, field: str, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(text)
    assert caught.value.field == field
    assert str(caught.value) == sentence


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
KEYS = sorted({field.name for kind in classes() for field in attrs.fields(kind)} | {"pyvirt"})
NAMES = sorted(kind.__name__ for kind in classes())
TABLES = st.dictionaries(
    st.sampled_from(KEYS), JSON | st.sampled_from(NAMES) | st.just({"type": "File", "path": "x"})
)


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in attrs.fields(VM)]),
        JSON | TABLES | st.lists(TABLES, max_size=2) | st.sampled_from(NAMES),
    )
)
def test_whatever_a_file_holds_it_is_a_vm_or_a_fault_in_it(mapping: dict[str, Any]) -> None:
    with suppress(SpecError):
        assert isinstance(described(mapping), VM)


def test_every_class_of_a_field_is_known() -> None:
    """A field that takes a base class without being told of its family would take nothing."""
    for kind in classes():
        for field in attrs.fields(kind):
            for one in kinds.classes(kinds.hints(kind)[field.name]):
                assert one in kinds.FAMILIES or kinds.anywhere(one.__name__) is one


def test_a_file_is_written_and_read(tmp_path: Path) -> None:
    vm = VM(disks=[Disk("data, with comma.qcow2")])
    for suffix in ("toml", "json"):
        assert VM.load(vm.save(tmp_path / f"vm.{suffix}")) == vm
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vm.json", "vm.toml"]


def test_a_file_with_a_secret_is_for_its_owner(tmp_path: Path) -> None:
    vm = VM(disks=[Disk(Luks("a.luks", Secret("hunter2")))])
    path = vm.save(tmp_path / "vm.toml")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert VM.load(path) == vm


def test_a_path_without_a_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"path must end in .toml or .json"):
        VM().save(tmp_path / "vm.yaml")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vm.json"
    path.write_text("[1]")
    with pytest.raises(SpecError) as caught:
        VM.load(path)
    assert str(caught.value) == f"{path} must be an object, got [1]"
    path.write_bytes(b"\xff")
    with pytest.raises(SpecError, match="must be UTF-8"):
        VM.load(path)
