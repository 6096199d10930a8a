"""Features and queues by their names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pyvirt.virtio.features import DEVICES, RING, bit, names
from pyvirt.virtio.kinds import kind_of, queue_name

HEADERS = Path("/usr/include/linux")
HEADER_OF = {
    "virtio-net": "net", "virtio-blk": "blk", "virtio-serial": "console",
    "virtio-balloon": "balloon", "virtio-scsi": "scsi", "virtio-gpu": "gpu",
    "virtio-iommu": "iommu", "virtio-mem": "mem", "virtio-vsock": "vsock",
}  # fmt: skip


def defined(header: str) -> dict[str, int]:
    """The feature bits that a header of Linux defines, by their names."""
    file = HEADERS / f"virtio_{header}.h"
    if not file.exists():
        pytest.skip("the headers of Linux are not installed")
    found = re.findall(r"#define VIRTIO_(?:[A-Z]+_)?F_(\w+)\s+(\d+)\s", file.read_text())
    return {name: int(number) for name, number in found}


@pytest.mark.parametrize("device", HEADER_OF)
def test_the_bits_of_devices_are_those_of_linux(device: str) -> None:
    for name, number in defined(HEADER_OF[device]).items():
        assert DEVICES[device][number] == name


def test_the_bits_of_rings_are_those_of_linux() -> None:
    config = {n: b for n, b in defined("config").items() if n not in ("START", "END")}
    assert {n: bit("virtio-rng", n) for n in config if n != "IOMMU_PLATFORM"} == {
        n: 1 << b for n, b in config.items() if n != "IOMMU_PLATFORM"
    }
    assert RING[28] == "RING_INDIRECT_DESC"
    assert RING[29] == "RING_EVENT_IDX"


def test_bits_become_names() -> None:
    agreed = 1 << 9 | 1 << 28 | 1 << 32 | 1 << 48
    expected = ("FLUSH", "RING_INDIRECT_DESC", "VERSION_1", "bit 48")
    assert names("vhost-user-blk-pci", agreed) == expected
    assert names("virtio-blk", 0) == ()


def test_names_become_bits() -> None:
    assert bit("virtio-net", "MRG_RXBUF") == 1 << 15
    assert bit("virtio-net", "RING_PACKED") == 1 << 34
    with pytest.raises(KeyError):
        bit("virtio-rng", "MRG_RXBUF")


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("virtio-blk-pci", "virtio-blk"),
        ("virtio-blk-pci-non-transitional", "virtio-blk"),
        ("vhost-user-fs", "virtio-fs"),
        ("vhost-vsock-pci", "virtio-vsock"),
        ("vhost-scsi", "virtio-scsi"),
        ("virtio-console", "virtio-serial"),
        ("virtio-tablet-pci", "virtio-input"),
    ],
)
def test_a_device_has_one_kind(device: str, kind: str) -> None:
    assert kind_of(device) == kind


CTRL_VQ, MQ = 1 << 17, 1 << 22


@pytest.mark.parametrize(
    ("device", "features", "queues", "expected"),
    [
        ("virtio-blk", 0, 0, ["request0", "request1"]),
        ("virtio-net", 0, 0, ["rx0", "tx0", "rx1"]),
        ("virtio-net", CTRL_VQ, 3, ["rx0", "tx0", "control"]),
        ("virtio-net", CTRL_VQ | MQ, 5, ["rx0", "tx0", "rx1", "tx1", "control"]),
        ("virtio-net", CTRL_VQ, 5, ["rx0", "tx0", "control"]),
        ("virtio-scsi", 0, 0, ["control", "event", "request0", "request1"]),
        ("virtio-serial", 0, 0, ["rx0", "tx0", "control-rx", "control-tx", "rx1", "tx1", "rx2"]),
        ("virtio-balloon", 0b10, 0, ["inflate", "deflate", "stats", "queue3"]),
        ("virtio-balloon", 0b100000, 0, ["inflate", "deflate", "reporting"]),
        ("virtio-balloon", 0b101010, 0,
         ["inflate", "deflate", "stats", "free-page-hint", "reporting"]),
        ("virtio-fs", 0, 0, ["hiprio", "request0", "request1"]),
        ("virtio-fs", 1, 0, ["hiprio", "notification", "request0"]),
        ("virtio-crypto", 0, 3, ["data0", "data1", "control"]),
        ("virtio-gpu", 0, 0, ["control", "cursor", "queue2"]),
        ("virtio-newer", 0, 0, ["queue0"]),
    ],
)  # fmt: skip
def test_queues_have_names(device: str, features: int, queues: int, expected: list[str]) -> None:
    found = [queue_name(device, at, features=features, queues=queues) for at in range(9)]
    assert found[: len(expected)] == expected
