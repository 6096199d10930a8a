"""An image that another process may write is told as such, and stays as free as it was."""

from __future__ import annotations

import copy
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.qemu import needs_qemu, start

from pyvirt.errors import ImageInUse
from pyvirt.image import FileSource, Image
from pyvirt.image.holders import held


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True, timeout=60)
    return path


def drive(path: Path, *more: str) -> list[str]:
    return ["-blockdev", ",".join(["driver=qcow2,node-name=n,file.driver=file",
                                   f"file.filename={path}", *more]),
            "-device", "virtio-blk-pci,drive=n"]  # fmt: skip


@pytest.fixture
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("no_warning")
def test_an_image_that_nobody_holds_is_opened_in_silence(disk: Path) -> None:
    with Image(disk) as image:
        assert image.held is None


@needs_qemu
def test_a_running_guest_is_named(disk: Path) -> None:
    with start([], "-name", "guest=web,debug-threads=off", *drive(disk)) as qemu:
        with pytest.warns(ImageInUse) as caught, Image(disk) as image:
            assert image.held is not None
        (holder,) = image.held.holders
        assert (holder.pid, holder.guest) == (qemu.process.pid, "web")
        assert holder.program.startswith("qemu")
        assert "write" in image.held.does
        assert {"write", "resize"} <= set(image.held.bars)
        (warning,) = caught
        assert isinstance(warning.message, ImageInUse)
        assert warning.message.path == str(disk)
        assert str(warning.message) == (
            f"{disk} is being written by {holder}: what is read of it may be torn"
        )
        assert str(holder) == f"{holder.program} (pid {qemu.process.pid}, guest web)"
        assert warning.filename == __file__


@needs_qemu
def test_info_says_who_writes_now_and_that_it_may_be_torn(disk: Path) -> None:
    with Image(disk) as image:
        assert (image.info.held, image.info.torn) == (None, False)
        with start([], *drive(disk)) as qemu:
            told = image.info
            assert told.held is not None
            assert [one.pid for one in told.held.holders] == [qemu.process.pid]
            assert told.torn
            words = [sys.executable, "-m", "pyvirt", "image", "info", str(disk)]
            said = subprocess.run(words, capture_output=True, text=True, timeout=60)
            assert f"held by  {told.held}: what is read may be torn\n" in re.sub(
                "  +", "  ", said.stdout
            )
            found = json.loads(subprocess.run([*words, "--json"], capture_output=True).stdout)
            assert (found["held_by"], found["torn"]) == (str(told.held), True)
        assert not image.info.torn


def test_info_has_the_words_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "3M"], check=True)
    with Image(path) as image:
        told = image.info
    assert (told.path, told.format, told.size) == (str(path), "qcow2", 3 << 20)
    assert told.file_size == path.stat().st_size
    assert told.header.cluster_bits == told.facts.header.cluster_bits == 16
    assert copy.deepcopy(told) == told
    with pytest.raises(AttributeError, match="nonsense"):
        told.nonsense  # noqa: B018


@needs_qemu
def test_looking_takes_no_lock_from_a_guest(disk: Path) -> None:
    with FileSource(disk) as source:
        assert held(source.fileno()) is None
        with start([], *drive(disk)):  # QEMU would refuse an image that we hold.
            assert held(source.fileno()) is not None
        assert held(source.fileno()) is None


@needs_qemu
@pytest.mark.usefixtures("no_warning")
def test_a_guest_that_only_reads_is_no_reason_to_warn(disk: Path) -> None:
    with start([], *drive(disk, "read-only=on")), Image(disk) as image:
        assert image.held is None


@needs_qemu
def test_a_backing_image_that_is_written_is_told_when_it_is_opened(disk: Path) -> None:
    top = disk.with_name("top.qcow2")
    words = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-u", "-b"]
    command = ["qemu-img", *words, str(disk), str(top), "1M"]
    subprocess.run(command, check=True, timeout=60)
    with start([], *drive(disk)), Image(top, trust=disk.parent) as image:
        assert image.held is None
        with pytest.warns(ImageInUse) as caught:
            assert len(image.layers) == 2
        assert [str(one.message.path) for one in caught] == [str(disk)]  # type: ignore[union-attr]


LOCK = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 100, 8, 0)
fcntl.fcntl(fd, int(sys.argv[2]), lock)
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("command", [fcntl.F_OFD_SETLK, fcntl.F_SETLK])
def test_locks_of_other_programs_count_and_are_named(disk: Path, command: int) -> None:
    words = [sys.executable, "-c", LOCK, str(disk), str(command)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"\n"
        with FileSource(disk) as source:
            found = held(source.fileno())
        process.communicate()
    assert found is not None
    assert [holder.pid for holder in found.holders] == [process.pid]


def test_a_lock_elsewhere_in_the_file_is_no_writer(disk: Path) -> None:
    with open(disk, "r+b") as file, FileSource(disk) as source:
        for place in (99, 100, 102, 104, 200, 203):
            lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, place, 1, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
            assert held(source.fileno()) is None
