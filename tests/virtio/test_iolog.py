"""fio iologs: their text, and what fio does when it replays them."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.traces import DISK, MS, SCSI, TX, Made, blk, flush, read, trace, write

from pyvirt.errors import SpecError
from pyvirt.virtio.records import TracedQueue
from pyvirt.virtio.trace import Trace

OTHER = TracedQueue("disk1", "virtio-blk", "/machine/peripheral/disk1", 0, 1 << 32)
needs_fio = pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")


def log(found: Trace, **more: str) -> list[str]:
    file = io.BytesIO()
    count = found.iolog(file, **more)
    lines = file.getvalue().decode().splitlines()
    assert sum(len(line.split()) == 5 for line in lines) == count
    return lines


def ranged(kind: int, *ranges: tuple[int, int], made: int = 5 * MS) -> Made:
    table = b"".join(struct.pack("<QII", sector, sectors, 0) for sector, sectors in ranges)
    return Made(0, made, made + 1, blk(kind, 0, table), writable_length=1)


def test_the_log_of_a_disk() -> None:
    found = trace(
        [
            read(8, 4096, 2 * MS, MS),
            write(16, 512, 3 * MS + 499, 0),
            flush(4 * MS, MS),
            ranged(11, (0, 8), (100, 2)),
            ranged(13, (32, 1), made=6 * MS),
            Made(0, 7 * MS, 8 * MS, blk(8, 0), writable_length=21),
            Made(0, 8 * MS, 9 * MS, b"cut", writable_length=21),
        ],
        [DISK],
        started=MS,
    )
    assert log(found) == [
        "fio version 3 iolog",
        "1 disk0 add",
        "1 disk0 open",
        "1001 disk0 read 4096 4096",
        "2001 disk0 write 8192 512",
        "3001 disk0 sync 0 0",
        "4001 disk0 trim 0 4096",
        "4001 disk0 trim 51200 1024",
        "5001 disk0 write 16384 512",
        "5001 disk0 close",
    ]


def command(code: int, lba: int, blocks: int, data: bytes = b"", flags: int = 0) -> bytes:
    block = struct.pack(">BBQI", code, flags, lba, blocks).ljust(32, b"\0")
    return b"\1\0\x40\5" + bytes(4) + struct.pack("<QBBB", 0, 0, 0, 0) + block + data


def test_the_log_of_scsi_disks() -> None:
    table = struct.pack(">QI4x", 7, 2)
    unmap = struct.pack(">HH4x", len(table) + 6, len(table)) + table
    found = trace(
        [
            Made(0, 0, 9, command(0x42, 0, 0, unmap), writable_length=108),
            Made(0, 1 * MS, 9, command(0x88, 3, 2), writable_length=108 + 8192),
            Made(0, 2 * MS, 9, command(0x91, 0, 0), writable_length=108),
            Made(0, 3 * MS, 9, command(0x93, 10, 4, bytes(4096)), writable_length=108),
            Made(0, 4 * MS, 9, command(0x93, 10, 4, bytes(4096), 8), writable_length=108),
            Made(0, 5 * MS, 9, command(0x00, 0, 0), writable_length=108),
        ],
        [SCSI],
    )
    assert log(found)[3:-1] == [
        "1 scsi0.0.5 trim 28672 8192",
        "1001 scsi0.0.5 read 12288 8192",
        "2001 scsi0.0.5 sync 0 0",
        "3001 scsi0.0.5 write 40960 16384",
        "4001 scsi0.0.5 trim 40960 16384",
    ]


def test_several_disks_and_names() -> None:
    requests = [read(0, 512, 1, 1), Made(1, 2000, 3000, blk(0, 1), writable_length=513)]
    found = trace([*requests, Made(2, 1, 2, bytes(80))], [DISK, OTHER, TX])
    assert log(found)[1:5] == ["1 disk0 add", "1 disk1 add", "1 disk0 open", "1 disk1 open"]
    assert log(found, device="disk1")[1:4] == [
        "1 disk1 add", "1 disk1 open", "3 disk1 read 512 512",
    ]  # fmt: skip
    assert log(found, device="disk1", name="/dev/vdb")[1] == "1 /dev/vdb add"
    assert log(found, device="net0") == ["fio version 3 iolog"]


def test_a_large_discard_is_several_trims() -> None:
    found = trace([ranged(11, (0, (3 << 30) // 512))], [DISK])
    assert [line.split()[3:] for line in log(found)[3:-1]] == [
        [str(at << 30), str(1 << 30)] for at in range(3)
    ]


@pytest.mark.parametrize("name", ["", "a b", "x" * 256])
def test_a_name_that_fio_cannot_read_is_refused(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        trace([read(0, 512, 1, 1)], [DISK]).iolog(io.BytesIO(), name=name)
    assert (caught.value.field, caught.value.value) == ("name", name)


def test_a_device_that_was_not_traced_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        trace([], [DISK, OTHER]).iolog(io.BytesIO(), device="disk7")
    assert str(caught.value) == "device must be one of disk0, disk1, got 'disk7'"


WORK = st.lists(
    st.tuples(st.sampled_from(["read", "write", "sync"]), st.integers(0, 1 << 40),
              st.integers(1, 2048), st.integers(0, 1 << 50)),
)  # fmt: skip


@given(WORK)
def test_every_request_is_a_line(work: list[tuple[str, int, int, int]]) -> None:
    requests, expected = [], []
    for order, (act, sector, sectors, made) in enumerate(work):
        if act == "sync":
            requests.append(flush(made, 1, order=order))
            places = (0, 0)
        else:
            make = {"read": read, "write": write}[act]
            requests.append(make(sector, sectors * 512, made, 1, order=order))
            places = (sector * 512, sectors * 512)
        expected.append((made, order, act, *places))
    found = [line.split() for line in log(trace(requests, [DISK])) if len(line.split()) == 5]
    for words, (made, _, act, offset, length) in zip(found, sorted(expected), strict=True):
        assert abs(int(words[0]) - 1 - made / 1000) <= 0.5
        assert words[1:] == ["disk0", act, str(offset), str(length)]


def fio(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["fio", "--name=replay", "--read_iolog=work.log", "--ioengine=psync", *more]
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=110, check=True
    )


@needs_fio
def test_fio_replays_a_log(tmp_path: Path) -> None:
    work = [("write", 0, 4096), ("read", 8192, 512), ("sync", 0, 0), ("write", 61440, 4096),
            ("read", 0, 65536)]  # fmt: skip
    requests = [
        flush(at * MS, 1) if act == "sync"
        else {"read": read, "write": write}[act](offset // 512, length, at * MS, 1)
        for at, (act, offset, length) in enumerate(work)
    ]  # fmt: skip
    found = trace(requests, [DISK])
    assert found.iolog(tmp_path / "work.log", name="disk.img") == len(work)
    (tmp_path / "disk.img").write_bytes(bytes(65536))
    said = fio(tmp_path, "--debug=io").stdout
    queued = re.findall(r" queue: .*?off=0x(\w+),len=0x(\w+),ddir=(\d)", said)
    acts = {"0": "read", "1": "write", "3": "sync"}
    assert [(acts[ddir], int(off, 16), int(size, 16)) for off, size, ddir in queued] == work
    assert any((tmp_path / "disk.img").read_bytes()[:4096]), "fio wrote"


@needs_fio
def test_fio_waits_as_long_as_the_guest_did(tmp_path: Path) -> None:
    found = trace([read(0, 512, 0, 1), read(1, 512, 400 * MS, 1)], [DISK])
    found.iolog(tmp_path / "work.log", name="disk.img")
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    job = json.loads(fio(tmp_path, "--output-format=json").stdout)["jobs"][0]
    assert job["read"]["total_ios"] == 2
    assert job["job_runtime"] >= 390, "microseconds: not 0.4 ms, and not 400 s"
