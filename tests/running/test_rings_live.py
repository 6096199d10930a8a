"""Virtqueues of real guests: what is read from outside equals what QEMU says."""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Iterator

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Disk, Firmware, Nic, RunningVM
from pyvirt.devices import Balloon, Rng
from pyvirt.errors import ClosedError, SpecError
from pyvirt.virtio.ring import Ring, Sampler

pytestmark = [needs_qemu, pytest.mark.timeout(400)]

MIB = 1 << 20

#: Reads and writes on every disk, packets on every card.
LOAD = (
    "for d in /sys/block/vd? /sys/block/sd?; do d=/dev/${d##*/};"
    " dd if=/dev/zero of=$d bs=64k count=16 oflag=direct 2>/dev/null;"
    " dd if=$d of=/dev/null bs=4k count=100 iflag=direct 2>/dev/null; done;"
    " ping -c 3 -i 0.2 10.0.2.2 >/dev/null; head -c 200 /dev/hwrng >/dev/null; true"
)


@pytest.fixture(scope="module", params=["q35", "pc"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningVM]:  # fmt: skip
    """A guest with memory on both sides of the hole, and rings of every kind in use."""
    folder = tmp_path_factory.mktemp("disks")
    disks = []
    for name, bus, more in (
        ("split", "virtio", {}),
        ("packed", "virtio", {"packed": True, "queues": 2}),
        ("direct", "virtio", {"properties": {"indirect_desc": False}}),
        ("flags", "virtio", {"packed": True, "properties": {"event_idx": False}}),
        ("scsi", "scsi", {}),
    ):
        path = folder / name
        path.write_bytes(b"")
        with path.open("r+b") as file:
            file.truncate(16 * MIB)
        disks.append(Disk(path, format="raw", id=name, bus=bus, **more))  # type: ignore[arg-type]
    vm = VM(
        machine=request.param,
        memory="3G" if request.param == "q35" else "4G",
        cpus=2,
        disks=disks,
        nics=[Nic(id="net"), Nic(id="bare", packed=True, event_idx=False, indirect_desc=False)],
        devices=[Rng(id="rng"), Balloon(id="balloon")],
    )
    with vm.start() as started:
        started.wait_for(agent=True)
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
        for _ in range(4):
            running.pause()
            rings = running.rings()
            moved = 0
            for ring in rings:
                state, said = ring.snapshot(), status(running, ring)
                assert state.consistent
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
    assert seen > len(rings)
    running.pause()
    try:
        sampler.sample(samples)
        for place, ring in enumerate(rings):
            if ring.kind == "split":
                used = struct.unpack_from("<H", samples, 8 * place + 2)[0]
                assert used == status(running, ring)["used-idx"], ring
        plain = next(n for n, ring in enumerate(rings) if ring.device == "split")
        first, last = (struct.unpack_from("<H", of, 8 * plain + 2)[0] for of in (before, samples))
        assert (last - first) & 0xFFFF > 10
    finally:
        running.resume()


def test_an_unknown_device_names_those_there_are(running: RunningVM) -> None:
    with pytest.raises(SpecError) as caught:
        running.rings("nic7")
    assert (caught.value.field, caught.value.value) == ("device", "nic7")
    assert re.search(r"must be a virtio device of this VM \(.*split.*\)", str(caught.value))


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
