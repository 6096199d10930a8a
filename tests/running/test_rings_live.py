"""Virtqueues of real guests: what is read from outside equals what QEMU says."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Device, Disk, Firmware, Nic, RunningVM
from pyvirt.devices import Balloon, Rng
from pyvirt.errors import ClosedError, SpecError, UnsupportedError
from pyvirt.virtio.ring import Ring, Sampler

pytestmark = [needs_qemu, pytest.mark.timeout(400)]

MIB = 1 << 20

#: Reads and writes on every disk, packets on every card.
LOAD = (
    "for d in /sys/block/vd? /sys/block/sd?; do d=/dev/${d##*/};"
    " dd if=/dev/zero of=$d bs=64k count=8 oflag=direct 2>/dev/null;"
    " dd if=$d of=/dev/null bs=4k count=50 iflag=direct 2>/dev/null; done;"
    " ping -c 2 -i 0.2 10.0.2.2 >/dev/null; head -c 200 /dev/hwrng >/dev/null; true"
)

#: On conventional PCI, devices are transitional unless this is said, and take no IOMMU.
MODERN = {"disable-legacy": "on", "iommu_platform": True}

DAEMON = shutil.which("qemu-storage-daemon")


def image(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    return path


@contextmanager
def daemon(folder: Path) -> Iterator[Path]:
    """A process that serves a disk over vhost-user, and its socket."""
    assert DAEMON is not None
    socket = folder / "served.sock"
    file = f"driver=file,node-name=file,filename={image(folder / 'served')}"
    export = "type=vhost-user-blk,id=disk,node-name=file,writable=on,num-queues=2"
    at = f"addr.type=unix,addr.path={socket}"
    serving = subprocess.Popen([DAEMON, "--blockdev", file, "--export", f"{export},{at}"])
    try:
        until = time.monotonic() + 60
        while not socket.exists() and time.monotonic() < until and serving.poll() is None:
            time.sleep(0.02)
        assert socket.exists()
        yield socket
    finally:
        serving.kill()
        serving.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVM]:
    """A guest with memory on both sides of the hole, and rings of every kind in use."""
    folder = tmp_path_factory.mktemp("disks")
    disks: list[Disk] = []
    devices: list[Any] = [Rng(id="rng"), Balloon(id="balloon"), Device("intel-iommu")]
    for name, bus, more in (
        ("split", "virtio", {}),
        ("packed", "virtio", {"packed": True, "queues": 2}),
        ("direct", "virtio", {"properties": {"indirect_desc": False}}),
        ("flags", "virtio", {"packed": True, "properties": {"event_idx": False}}),
        ("secret", "virtio", {"properties": {"iommu_platform": True}}),
        ("scsi", "scsi", {}),
    ):
        disks.append(
            Disk(image(folder / name), format="raw", id=name, bus=bus, **more)  # type: ignore[arg-type]
        )
    nics = [Nic(id="net"), Nic(id="bare", packed=True, event_idx=False, indirect_desc=False)]
    vm = VM(machine="q35", memory="3G", cpus=2, disks=disks, nics=nics, devices=devices)
    with vm.start() as started:
        started.wait_for(agent=True, timeout=300)
        started.run(LOAD)
        yield started


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVM]:
    """A pc without an IOMMU, and a disk that another process serves where that is installed."""
    folder = tmp_path_factory.mktemp("small")
    disk = Disk(image(folder / "disk"), format="raw", properties=MODERN)
    arguments: list[str] = []
    devices: list[Device] = []
    with ExitStack() as stack:
        if DAEMON is not None:
            socket = stack.enter_context(daemon(folder))
            arguments = ["-chardev", f"socket,id=daemon,path={socket}"]
            devices = [Device("vhost-user-blk-pci", {"chardev": "daemon"}, id="served")]
        vm = VM(
            machine="pc", memory="256M", cpus=2, disks=[disk], devices=devices,
            arguments=arguments,
        )  # fmt: skip
        started = stack.enter_context(vm.start())
        started.wait_for(agent=True, timeout=300)
        started.run(LOAD)
        yield started


def status(running: RunningVM, ring: Ring) -> dict[str, int]:
    answer = running.qmp.x_query_virtio_queue_status(path=ring.path, queue=ring.queue)
    return dict(answer)


def test_every_queue_is_found_with_its_name(running: RunningVM) -> None:
    named = {(ring.device, ring.name): ring for ring in running.rings()}
    expected = "split request0, packed request0, packed request1, net rx0, net tx0, net control"
    assert {tuple(one.split()) for one in f"{expected}, rng request".split(", ")} <= set(named)
    assert named["packed", "request1"].kind == "packed"
    assert named["split", "request0"].kind == "split"
    assert "RING_INDIRECT_DESC" not in named["direct", "request0"].features
    assert "RING_EVENT_IDX" not in named["flags", "request0"].features
    assert "RING_EVENT_IDX" in named["split", "request0"].features
    assert named["split", "request0"].device_kind == "virtio-blk"
    assert any(ring.device_kind == "virtio-scsi" for ring in named.values())
    assert any(ring.device_kind == "virtio-serial" for ring in named.values())
    assert [ring.device for ring in running.rings("packed")] == ["packed"] * 2


def test_rings_lie_above_the_hole_and_are_read(running: RunningVM) -> None:
    high = [ring for ring in running.rings() if ring.layout.desc >= 1 << 32]
    assert high
    assert len(running.memory.regions) == 2


def test_indexes_equal_what_qemu_says_of_a_paused_guest(running: RunningVM) -> None:
    with running.spawn(LOAD):
        for _ in range(3):
            running.pause()
            rings = running.rings()
            moved = 0
            for ring in rings:
                state = ring.snapshot()
                assert state.consistent
                if ring.untouched:
                    continue
                said = status(running, ring)
                if state.certain:
                    assert state.used_idx == said["used-idx"], ring
                if ring.kind == "split":
                    assert (state.avail_idx - said["last-avail-idx"]) & 0xFFFF <= ring.size
                    assert state.in_flight >= said["inuse"]
                assert ring.validate() == (), ring
                moved += state.used_idx > 0
            assert moved > 5
            running.resume()


def test_packed_rings_that_are_idle_are_certain(running: RunningVM) -> None:
    running.pause()
    try:
        for name in ("packed", "flags"):
            for ring in running.rings(name):
                state, said = ring.snapshot(), status(running, ring)
                assert state.certain
                assert (state.used_idx, state.in_flight) == (said["used-idx"], 0)
                assert state.avail_idx == said["last-avail-idx"]
    finally:
        running.resume()


@pytest.mark.skipif(DAEMON is None, reason="needs qemu-storage-daemon")
def test_queues_that_another_process_serves_are_read(small: RunningVM) -> None:
    """QEMU knows where they are, and must not be asked for their indexes: that stops them."""
    rings = small.rings("served")
    assert [(ring.name, ring.device_kind) for ring in rings] == [
        ("request0", "virtio-blk"), ("request1", "virtio-blk"),
    ]  # fmt: skip
    before = sum(ring.snapshot().used_idx for ring in rings)
    assert before > 0
    for ring in rings:
        assert ring.snapshot().used_idx == ring.snapshot().avail_idx
        assert ring.validate() == ()
        assert len(ring.in_flight()) == 0
        for entry in ring.used()[: ring.snapshot().used_idx]:
            assert 0 <= entry.id < ring.size
            assert entry.length >= 1  # the status byte, at least
    small.run(LOAD)
    assert sum(ring.snapshot().used_idx for ring in rings) > before


def test_a_device_behind_an_iommu_hides_no_other(running: RunningVM) -> None:
    rings = running.rings()
    assert "secret" not in {ring.device for ring in rings}
    assert list(rings.unreadable) == ["secret"]
    with pytest.raises(UnsupportedError) as caught:
        running.rings("secret")
    assert str(caught.value) == str(rings.unreadable["secret"])
    assert caught.value.where == "a VM whose intel-iommu translates its addresses"


def test_chains_in_flight_are_the_buffers_of_the_guest(running: RunningVM) -> None:
    (rx, *_) = [ring for ring in running.rings("net") if ring.name == "rx0"]
    flight = rx.in_flight()
    assert len(flight) == rx.snapshot().in_flight > 0
    for chain in rx.chains():
        assert (chain.readable, len(chain) > 0) == (0, True)
        assert chain.writable >= 1500
        for desc in chain:
            running.memory.read(desc.address, desc.length)


def test_a_ring_in_use_is_read_while_it_moves(running: RunningVM) -> None:
    rings = running.rings()
    sampler, samples = Sampler(rings), bytearray(8 * len(rings))
    before = bytearray(samples)
    sampler.sample(before)
    with running.spawn(LOAD) as live:
        seen = 0
        ended = threading.Event()
        threading.Thread(target=lambda: (live.wait(), ended.set()), daemon=True).start()
        while not ended.is_set():
            sampler.sample(samples)
            for ring in rings:
                ring.snapshot()
                ring.in_flight()
                seen += 1
            time.sleep(0.005)  # the guest wants a processor, too
    assert seen > len(rings)
    running.pause()
    try:
        sampler.sample(samples)
        for place, ring in enumerate(rings):
            if ring.kind == "split":
                used = struct.unpack_from("<H", samples, 8 * place + 2)[0]
                assert used == status(running, ring)["used-idx"], ring
        places = [n for n, ring in enumerate(rings) if ring.device == "split"]
        first, last = (
            sum(struct.unpack_from("<H", of, 8 * place + 2)[0] for place in places)
            for of in (before, samples)
        )
        assert last - first > 10
    finally:
        running.resume()


def test_an_unknown_device_names_those_there_are(running: RunningVM) -> None:
    with pytest.raises(SpecError) as caught:
        running.rings("nic7")
    assert (caught.value.field, caught.value.value) == ("device", "nic7")
    assert re.search(r"must be a virtio device of this VM \(.*split.*\)", str(caught.value))


def test_without_an_iommu_platform_addresses_are_read_on_a_pc(small: RunningVM) -> None:
    rings = small.rings("disk0")
    assert small.rings().unreadable == {}
    for ring in rings:
        assert "ACCESS_PLATFORM" in ring.features
        assert ring.snapshot().used_idx == status(small, ring)["used-idx"]
        assert ring.validate() == ()
    assert sum(ring.snapshot().used_idx for ring in rings) >= 50


def test_devices_without_a_driver_have_no_rings() -> None:
    with VM(nics=[Nic()], boot=Firmware(), agents=(), memory="64M", accel="tcg").start() as idle:
        assert idle.rings("nic0") == ()


def test_rings_of_a_guest_that_ended_say_so(running: RunningVM) -> None:
    """The last test: there is no guest after it."""
    ring, *_ = running.rings("net")
    stop = threading.Event()
    errors: list[BaseException] = []
    thread = threading.Thread(target=_look_until, args=(ring, stop, errors))
    thread.start()
    os.kill(running.pid, 9)
    running.wait(timeout=60)
    stop.set()
    thread.join()
    with pytest.raises(ClosedError) as caught:
        ring.snapshot()
    assert "SIGKILL" in str(caught.value)
    assert all(isinstance(error, ClosedError) for error in errors)


def _look_until(ring: Ring, stop: threading.Event, errors: list[BaseException]) -> None:
    try:
        while not stop.is_set():
            ring.snapshot()
            ring.in_flight()
    except BaseException as error:
        errors.append(error)
