"""Requests of a real guest that are in flight, because its disks are made slow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Disk, Nic, RunningVM
from pyvirt.errors import RingError
from pyvirt.virtio.requests import BlkRequest, NetFrame, Request, ScsiRequest
from pyvirt.virtio.requests.live import requests, used

SIZE = 32768
LIMITS = {"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 1, "iops_rd": 0, "iops_wr": 0}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVM]:
    """A guest with two disks, of which each does one request a second from now on."""
    folder: Path = tmp_path_factory.mktemp("slow")
    for name in ("blk.img", "scsi.img"):
        (folder / name).write_bytes(bytes(1 << 20))
    disks = [
        Disk(folder / "blk.img", format="raw"),
        Disk(folder / "scsi.img", format="raw", bus="scsi"),
    ]
    with VM(memory="256M", disks=disks, nics=[Nic()]).start() as guest:
        guest.wait_for(agent=True)
        for disk in ("/machine/peripheral/disk0/virtio-backend", "disk1"):
            guest.qmp.execute("block_set_io_throttle", {"id": disk, **LIMITS})
        yield guest


def in_flight(guest: RunningVM, device: str, disk: str) -> list[Request]:
    """What is in flight once the guest reads eight places of a disk at the same time."""
    read = f"dd if=/dev/{disk} of=/dev/null bs={SIZE} skip=$at count=1 iflag=direct"
    guest.run(f"for at in 1 2 3 4 5 6 7 8; do {read} >/dev/null 2>&1 </dev/null & done", check=True)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        rings = [ring for ring in guest.rings(device) if ring.name.startswith("request")]
        # One that is done while it is read is no chain any more; the others wait for long.
        with suppress(RingError):
            if found := [one for ring in rings for one in requests(ring)]:
                return found
        time.sleep(0.01)
    raise AssertionError(f"nothing was in flight on {device}")


@needs_qemu
def test_reads_of_a_virtio_disk(running: RunningVM) -> None:
    for one in in_flight(running, "disk0", "vda"):
        assert isinstance(one, BlkRequest)
        assert (one.operation, one.length, one.error) == ("read", SIZE, None)
        assert one.offset in range(SIZE, 9 * SIZE, SIZE)
        assert (one.device, one.kind, one.status) == ("disk0", "virtio-blk", None)


@needs_qemu
def test_reads_of_a_scsi_disk(running: RunningVM) -> None:
    for one in in_flight(running, "scsi0", "sda"):
        assert isinstance(one, ScsiRequest)
        assert (one.operation, one.length, one.error) == ("read", SIZE, None)
        assert one.offset in range(SIZE, 9 * SIZE, SIZE)
        assert (one.command.name, one.command.blocks) == ("READ(10)", SIZE // 512)
        assert (one.lun.target, one.lun.lun, one.block_size) == (0, 0, 512)


@needs_qemu
def test_frames_of_a_network_card(running: RunningVM) -> None:
    running.run("ping -c 1 10.0.2.2", check=True)
    found: list[str] = []
    for ring in running.rings("nic0"):
        if ring.name == "control":
            continue
        for entry in ring.used()[: ring.snapshot().used_idx]:
            frame = used(ring, ring.chain(entry.id), entry.length)
            assert isinstance(frame, NetFrame)
            found.append(frame.summary())
    assert "transmit IPv4 10.0.2.15 > 10.0.2.2: ICMP echo request, length 98" in found
    assert "receive IPv4 10.0.2.2 > 10.0.2.15: ICMP echo reply, length 98" in found
