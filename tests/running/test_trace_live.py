"""Traces of a real guest: what it did is what was seen, each request once and in its order."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import astuple
from support.qemu import needs_qemu

from pyvirt import VM, Device, Disk, Nic, RunningVM, SpecError, aio
from pyvirt.guest import Guest
from pyvirt.running.rings.bells import Bells
from pyvirt.running.rings.trace import SNAP
from pyvirt.virtio.requests import NetFrame, Request
from pyvirt.virtio.trace import Trace

pytestmark = [needs_qemu, pytest.mark.timeout(300)]

MIB = 1 << 20

#: What a trace keeps of a frame, behind the 12 bytes of its header.
KEPT = SNAP - 12

#: A guest under TCG whose host is busy may be faster than who looks at it. Then a trace says so,
#: and is tried again.
TRIES = 5


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where QEMU writes the frames of the card."""
    return tmp_path_factory.mktemp("frames") / "frames.pcap"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, frames: Path) -> Iterator[RunningVM]:
    """A guest with fio, two disks and a card."""
    folder = tmp_path_factory.mktemp("disks")
    for name in ("blk.img", "scsi.img", "packed.img"):
        with open(folder / name, "wb") as file:
            file.truncate(16 * MIB)
    vm = VM(
        memory="512M",
        boot=Guest(packages=["fio"]),
        disks=[
            Disk(folder / "blk.img", format="raw"),
            Disk(folder / "scsi.img", format="raw", bus="scsi"),
            Disk(folder / "packed.img", format="raw", properties={"packed": True}),
        ],
        nics=[Nic(dump=frames)],
    )
    with vm.start() as running:
        running.wait_for(agent=True)
        yield running


def fio(guest: RunningVM, disk: str, *, depth: int, seed: int) -> list[tuple[str, int, int]]:
    """Run a job of random writes and reads; what its own log says that it did, in order."""
    guest.run(
        "rm -f /tmp/log; fio --name=job --direct=1 --bs=4k --size=800k --rw=randrw "
        f"--ioengine=libaio --filename=/dev/{disk} --iodepth={depth} --randseed={seed} "
        "--write_iolog=/tmp/log",
        check=True,
    )
    done = []
    for line in guest.read_text("/tmp/log").splitlines():
        words = line.split()[-3:]
        if words and words[0] in ("read", "write"):
            done.append((words[0], int(words[1]), int(words[2])))
    assert len(done) == 200
    return done


def moved(trace: Trace) -> list[tuple[str, int | None, int]]:
    """What the trace says was read and written beyond fio's own first looks at the disk."""
    return [
        (one.operation, one.offset, one.length)
        for one in trace
        if one.operation in ("read", "write")
    ]


def traced(
    guest: RunningVM, device: str, disk: str, depth: int
) -> tuple[Trace, list[tuple[str, int, int]]]:
    """A whole trace of a job, and what the job did."""
    for seed in range(TRIES):
        with guest.trace(device, realtime=True) as tracer:
            done = fio(guest, disk, depth=depth, seed=seed)
        trace = tracer.stop()
        if not trace.lost:
            break
    assert not trace.lost, str(trace.lost)
    return trace, done


@pytest.mark.parametrize(
    ("device", "disk"),
    [pytest.param("disk0", "vda", id="blk"), pytest.param("scsi0", "sda", id="scsi")],
)
def test_a_trace_has_the_requests_of_a_job_in_their_order(
    guest: RunningVM, device: str, disk: str
) -> None:
    trace, done = traced(guest, device, disk, 1)
    seen = moved(trace)
    assert [one for one in seen if one in set(done)] == done
    writes = [one for one in trace if one.operation == "write"]
    assert all(one.error is None and one.done is not None for one in writes)


@pytest.mark.parametrize(
    ("device", "disk"),
    [pytest.param("disk0", "vda", id="blk"), pytest.param("scsi0", "sda", id="scsi")],
)
def test_a_trace_of_a_deep_queue_misses_nothing(guest: RunningVM, device: str, disk: str) -> None:
    guest.run(f"echo none > /sys/block/{disk}/queue/scheduler; "
              f"echo 2 > /sys/block/{disk}/queue/nomerges", check=True)  # fmt: skip
    trace, done = traced(guest, device, disk, 32)
    assert sorted(one for one in moved(trace) if one in set(done)) == sorted(done)
    assert max(trace.columns["depth"]) > 1


def replayed(log: Path) -> list[tuple[str, int, int]]:
    """What fio does when it replays a log, in its own words."""
    words = ["fio", "--name=replay", f"--read_iolog={log.name}", "--ioengine=psync",
             "--replay_no_stall=1", "--debug=io"]  # fmt: skip
    said = subprocess.run(
        words, cwd=log.parent, capture_output=True, text=True, timeout=200, check=True
    ).stdout
    found = re.findall(r" queue: .*?off=0x(\w+),len=0x(\w+),ddir=([01])", said)
    return [(("read", "write")[int(way)], int(off, 16), int(size, 16)) for off, size, way in found]


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")
@pytest.mark.parametrize(
    ("device", "disk"),
    [pytest.param("disk0", "vda", id="blk"), pytest.param("scsi0", "sda", id="scsi")],
)
def test_the_log_of_a_job_is_replayed(
    guest: RunningVM, device: str, disk: str, tmp_path: Path
) -> None:
    trace, done = traced(guest, device, disk, 1)
    log = tmp_path / "work.log"
    trace.iolog(log, device=device, name="copy.img")
    with open(tmp_path / "copy.img", "wb") as file:
        file.truncate(16 * MIB)
    again = replayed(log)
    assert again == moved(trace)
    assert [one for one in again if one in set(done)] == done


def test_what_a_packed_ring_did_is_seen_or_counted(guest: RunningVM) -> None:
    with guest.trace("disk2") as tracer:
        done = fio(guest, "vdb", depth=16, seed=1)
    trace = tracer.stop()
    seen = [one for one in moved(trace) if one in set(done)]
    assert len(seen) + trace.lost.requests + trace.lost.uncertain >= len(done)
    if not trace.lost:
        assert sorted(seen) == sorted(done)


def pcap(path: Path) -> list[bytes]:
    """The frames of a pcap file."""
    data, at, frames = path.read_bytes(), 24, []
    while at + 16 <= len(data):
        size = struct.unpack_from("<8xII", data, at)[0]
        frames.append(data[at + 16 : at + 16 + size])
        at += 16 + size
    return frames


def test_pings_are_the_frames_that_qemu_saw(guest: RunningVM, frames: Path) -> None:
    before = len(pcap(frames))
    with guest.trace("nic0", snap=2048, realtime=True) as tracer:
        guest.run("ping -c 5 -i 0.2 -s 100 10.0.2.2", check=True)
    trace = tracer.stop()
    assert not trace.lost
    found = [one for one in trace if isinstance(one, NetFrame) and one.done and one.length]
    seen = [bytes(one.data) for one in found]
    wanted = pcap(frames)[before:]
    assert sorted(seen) == sorted(wanted)
    assert sum(frame[12:14] == b"\x08\x00" and frame[23] == 1 for frame in seen) == 10


def packets(path: Path) -> list[tuple[bytes, int]]:
    """The first bytes and the whole length of each packet of a pcap-ng file."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == 6:  # an enhanced packet block
            kept, whole = struct.unpack_from("<II", data, at + 20)
            found.append((data[at + 28 : at + 28 + kept], whole))
        at += size
    return found


def test_a_capture_has_the_stream_that_the_other_side_got(
    guest: RunningVM, frames: Path, tmp_path: Path
) -> None:
    file = tmp_path / "net.pcapng"
    for _ in range(TRIES):
        before = len(pcap(frames))
        with guest.trace("nic0", realtime=True) as tracer:
            assert received(guest, MIB) == MIB
        trace, wanted = tracer.stop(), [one for one in pcap(frames)[before:] if is_tcp(one)]
        assert trace.pcapng(file) == len(packets(file))
        seen = [one for one in packets(file) if is_tcp(one[0])]
        assert len(seen) + sum(astuple(trace.lost)) >= len(wanted)
        if not trace.lost:
            break
    if not trace.lost:
        assert sorted(seen) == sorted((one[:KEPT], len(one)) for one in wanted)


def is_tcp(frame: bytes) -> bool:
    """Of the stream: what the guest says to its neighbours may come before the trace."""
    return frame[12:14] == b"\x08\x00" and frame[23] == 6


def received(guest: RunningVM, size: int) -> int:
    """How much of a stream of `size` bytes from the guest came to us."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(100)
        port, got = server.getsockname()[1], 0
        job = threading.Thread(target=guest.run, args=(
            f"dd if=/dev/zero bs=64k count={size >> 16} | nc 10.0.2.2 {port}",))  # fmt: skip
        job.start()
        connection, _ = server.accept()
        with connection:
            while more := len(connection.recv(1 << 16)):
                got += more
        job.join()
    return got


def test_requests_come_as_they_are_done(guest: RunningVM) -> None:
    with guest.trace("disk0", keep=False, realtime=True) as tracer:

        def write() -> None:
            guest.run("dd if=/dev/zero of=/dev/vda bs=64k count=4 oflag=direct", check=True)
            told.append(repr(tracer))
            rest.extend(tracer.stop())

        told: list[str] = []
        rest: list[Request] = []
        writer = threading.Thread(target=write)
        writer.start()
        seen = list(tracer)
        writer.join()
    writes = [one.length for one in seen + rest if one.operation == "write"]
    assert writes == [65536] * 4 or tracer.lost
    assert "following" in told[0]
    assert tracer.over
    assert tracer.why == "it was stopped"


def test_a_callback_gets_each_request(guest: RunningVM) -> None:
    seen: list[Request] = []
    with guest.trace("disk0", realtime=True, callback=seen.append) as tracer:
        guest.run("dd if=/dev/vda of=/dev/null bs=32k count=3 iflag=direct", check=True)
    trace = tracer.stop()
    assert len(seen) == len(trace)
    assert sum(one.length == 32768 for one in seen) == 3 or trace.lost


def test_what_a_callback_raises_comes_out_of_stop(guest: RunningVM) -> None:
    def fail(request: Request) -> None:
        raise ValueError(request.operation)

    with pytest.raises(ValueError, match="read"), guest.trace("disk0", callback=fail):
        guest.run("dd if=/dev/vda of=/dev/null bs=4k count=100 iflag=direct", check=True)


def test_a_trace_is_awaited(guest: RunningVM) -> None:
    async def scenario() -> tuple[list[Request], Trace]:
        running = aio.vm.RunningVM.of(guest)
        async with await running.trace("disk0", realtime=True) as tracer:

            async def read() -> Trace:
                await running.run("dd if=/dev/vda of=/dev/null bs=16k count=2 iflag=direct")
                return await tracer.stop()

            task = asyncio.create_task(read())
            return [request async for request in tracer], await task

    seen, trace = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert len(seen) <= len(trace)
    assert sum(one.length == 16384 for one in trace) == 2 or trace.lost


def test_a_small_buffer_drops_and_says_so(guest: RunningVM) -> None:
    with guest.trace("disk0", buffer=8192) as tracer:
        fio(guest, "vda", depth=1, seed=random.randrange(100))
    trace = tracer.stop()
    assert trace.lost.dropped > 0
    assert len(trace) < 200


def test_a_guest_that_does_nothing_is_hardly_looked_at(guest: RunningVM) -> None:
    with guest.trace("disk0") as tracer:
        with Bells(guest.pid) as bells:
            rings = bells.count > 0
        time.sleep(1)
        looks = tracer.effort.looks
    if rings:  # else descriptors of QEMU may not be taken here
        assert looks < 5000


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"interval": 0}, "interval"),
        ({"budget": 1.5}, "budget"),
        ({"snap": 1 << 20}, "snap"),
        ({"buffer": 10}, "buffer"),
    ],
)
def test_terms_that_cannot_be(guest: RunningVM, terms: dict[str, float], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        guest.trace("disk0", **terms)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_device_that_is_not_there(guest: RunningVM) -> None:
    with pytest.raises(SpecError, match="must be a virtio device of this VM"):
        guest.trace("disk9")


def test_a_tracer_that_nobody_stops_ends_and_warns(guest: RunningVM) -> None:
    before = threading.active_count()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        guest.trace("disk0")
        gc.collect()
    assert any("was not stopped" in str(one.message) for one in caught)
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_trace_of_packed_queues_ends_with_its_guest(tmp_path: Path) -> None:
    with open(tmp_path / "disk.img", "wb") as file:
        file.truncate(MIB)
    disk = Disk(tmp_path / "disk.img", format="raw", properties={"packed": True, "num-queues": 2})
    vm = VM(machine="pc", cpus=2, memory="256M", disks=[disk], devices=[Device("virtio-rng-pci")])
    with vm.start() as running:
        running.wait_for(agent=True)
        tracer = running.trace()
        for cpu, place in ((0, 3), (1, 5)):
            running.run(f"taskset {1 << cpu} dd if=/dev/vda of=/dev/null bs=4k count=1 "
                        f"skip={place} iflag=direct", check=True)  # fmt: skip
        running.stop()
        list(tracer)
        assert tracer.over
        assert tracer.why == f"{vm.name} ended"
    trace = tracer.stop()
    reads = {(one.queue.name, one.offset) for one in trace if one.operation == "read"}
    assert {("request0", 3 * 4096), ("request1", 5 * 4096)} <= reads or trace.lost
