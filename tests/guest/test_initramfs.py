"""What lies where in the default guest."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from support.elfs import relocatable

from pyvirt.errors import ProtocolError, SpecError
from pyvirt.guest import cmdline, cpio, strip
from pyvirt.guest.initramfs import File, Programs, applets, initramfs, script
from pyvirt.guest.modules import Module
from pyvirt.guest.tree import Tree, merged

TABLE = b"\0".join([b"", *(b"tool%d" % n for n in range(80)), b"busybox", b"modprobe", b"sh", b""])
PROGRAMS = Programs(agent=b"agent", drivers=b"drivers", busybox=b"\x7fELF" + TABLE)
KO = relocatable(text=b"code", BTF=b"types")
MODULE = Module("virtio_blk", "kernel/drivers/virtio_blk.ko.xz", aliases=("virtio:d00000002v*",))
MOUSE = Module("psmouse", "kernel/psmouse.ko", aliases=("serio:*",))


def made(**files: File) -> dict[str, cpio.Entry]:
    found = {"virtio_blk": (MODULE, KO), "psmouse": (MOUSE, KO)}
    named = {"/" + name.replace("__", "/"): file for name, file in files.items()}
    entries = initramfs(PROGRAMS, "6.1", found, ["virtio_blk"], named)
    assert [entry.path for entry in entries] == sorted(entry.path for entry in entries)
    return {entry.path: entry for entry in entries}


def test_the_agent_is_process_1_and_runs_the_drivers() -> None:
    tree = made()
    assert (tree["init"].data, stat.S_IMODE(tree["init"].mode)) == (b"agent", 0o755)
    assert tree["etc/pyvirt/init"].data == b"/usr/lib/pyvirt/drivers"
    assert tree["usr/lib/pyvirt/drivers"].data == b"drivers"
    assert tree["usr/bin/modprobe"].data == b"/usr/lib/pyvirt/drivers"
    assert tree["usr/bin/sh"].data == b"busybox"


def test_modules_are_uncompressed_and_in_the_tables() -> None:
    tree = made()
    folder = "usr/lib/modules/6.1"
    assert tree[f"{folder}/kernel/drivers/virtio_blk.ko"].data == strip.module(KO)
    assert b"kernel/drivers/virtio_blk.ko:\n" in tree[f"{folder}/modules.dep"].data
    assert tree["etc/pyvirt/modules"].data == b"virtio_blk\n"


def test_what_is_dormant_is_there_and_not_loaded_for_hardware() -> None:
    tree = made()
    assert "usr/lib/modules/6.1/kernel/psmouse.ko" in tree
    aliases = tree["usr/lib/modules/6.1/modules.alias"].data
    assert aliases == b"alias virtio:d00000002v* virtio_blk\n"


def test_a_users_file_replaces_one_of_the_guest() -> None:
    tree = made(etc__hostname=File(b"mine\n", 0o600), bin__tool=File(link="sh"))
    assert tree["etc/hostname"].data == b"mine\n"
    assert stat.S_IMODE(tree["etc/hostname"].mode) == 0o600
    assert tree["usr/bin/tool"].data == b"sh"


def test_paths_follow_the_merged_layout() -> None:
    assert merged("/bin/sh") == merged("//usr/./sbin/sh") == "usr/bin/sh"
    assert merged("/lib64/ld.so") == "usr/lib64/ld.so"
    assert merged("/binary/x") == "binary/x"


@pytest.mark.parametrize("path", ["/", "", "/a/../b"])
def test_a_path_that_leaves_the_root_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match=r"^path must name something below the root"):
        merged(path)


def test_a_file_below_a_file_is_refused() -> None:
    tree = Tree()
    tree.file("/a", b"")
    with pytest.raises(SpecError) as caught:
        tree.file("/a/b", b"")
    assert caught.value.field == "files['/a/b']"


def test_a_file_in_the_place_of_a_directory_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        made(etc=File(b"x"))
    assert caught.value.field == "files['/etc']"


def test_applets_are_those_that_busybox_lists() -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    assert applets(Path(busybox).read_bytes()) == listed.stdout.split()


def test_a_busybox_without_applets_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"^busybox has no table of applets"):
        applets(b"\x7fELF")


def test_a_script_is_for_sh_unless_it_says_otherwise() -> None:
    assert script("echo \udcff") == b"#!/bin/sh\necho \xff\n"
    assert script("#!/usr/bin/awk\nx") == b"#!/usr/bin/awk\nx"


def test_the_users_words_come_last() -> None:
    line = cmdline.append("quiet=0  other")
    assert line.startswith("console=ttyS0 ")
    assert line.endswith(" quiet=0 other")


def test_an_address_is_one_word() -> None:
    word = cmdline.ip("52:54:00:00:00:01", "10.0.2.15/24", "10.0.2.2", "10.0.2.3")
    assert word == "pyvirt.ip=52:54:00:00:00:01,10.0.2.15/24,10.0.2.2,10.0.2.3"
    assert cmdline.ip("*", "192.0.2.1/30") == "pyvirt.ip=*,192.0.2.1/30,,"
