"""What QEMU says of its virtqueues, step by step, without a QEMU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pyvirt.errors import CommandError, SpecError, UnsupportedError
from pyvirt.flows.memory import Place, modules, place
from pyvirt.flows.rings import Found, Survey, agreed, device_id, found
from pyvirt.qmp.flow import Flow
from pyvirt.virtio.layout import PACKED

PATH = "/machine/peripheral/disk0/virtio-backend"
READY = ["VIRTIO_CONFIG_S_DRIVER: known", "VIRTIO_CONFIG_S_DRIVER_OK: Driver setup and ready"]
QUEUE = {
    "vring-num": 256, "vring-desc": 1 << 33, "vring-avail": 1 << 20, "vring-used": 1 << 21,
    "used-idx": 7,
}  # fmt: skip


def status(**changed: Any) -> dict[str, Any]:
    names = {"transports": ["VIRTIO_F_VERSION_1: compliant", "VIRTIO_F_RING_PACKED: packed"],
             "dev-features": ["VIRTIO_BLK_F_FLUSH: flush"]}  # fmt: skip
    known = {"name": "virtio-blk", "num-vqs": 2, "status": {"statuses": READY}}
    return {**known, "guest-features": names, "device-endian": "little", **changed}


def answered(flow: Flow[Any], answers: Mapping[str, Any]) -> Any:
    """Run a flow with these answers; one that is an error is thrown in."""
    value: Any = None
    error: Exception | None = None
    while True:
        try:
            command = flow.throw(error) if error is not None else flow.send(value)
        except StopIteration as end:
            return end.value
        said = answers[command.name]
        said = said(command.arguments) if callable(said) else said
        error = said if isinstance(said, Exception) else None
        value = said


PLATFORM = {"transports": ["VIRTIO_F_IOMMU_PLATFORM: Device can be used on IOMMU platform"]}


def machine(*types: str, **changed: Any) -> dict[str, Any]:
    """What a QEMU answers that has devices of these types, too."""
    others = [{"name": f"device[{n}]", "type": f"child<{type}>"} for n, type in enumerate(types)]
    return {
        "qom-list": lambda arguments: others if arguments["path"].endswith("-anon") else [],
        "x-query-virtio": [{"path": PATH, "name": "virtio-blk"}],
        "x-query-virtio-status": status(**changed),
        "x-query-virtio-queue-status": lambda arguments: (
            QUEUE if arguments["queue"] == 0 else {**QUEUE, "vring-desc": 0}
        ),
    }


def asked(**changed: Any) -> tuple[Found, ...]:
    survey: Survey = answered(found("disk0"), machine(**changed))
    return survey.queues


def test_a_queue_has_its_layout() -> None:
    (one,) = asked()
    assert (one.device, one.kind, one.queue, one.name) == ("disk0", "virtio-blk", 0, "request0")
    assert (one.layout.kind, one.layout.size, one.layout.desc) == ("packed", 256, 1 << 33)
    assert (one.layout.driver, one.layout.device, one.used) == (1 << 20, 1 << 21, 7)


def test_vhost_queues_are_not_asked_for_what_would_stop_them() -> None:
    """vhost has queue 0 and QEMU queue 1, as the control queue of a card."""
    places = {"num": 128, "desc-phys": 1 << 34, "avail-phys": 1 << 35, "used-phys": 1 << 36}
    missing = CommandError("x-query-virtio-vhost-queue-status", "GenericError", "no such queue")
    answers = machine(**{"vhost-started": True}) | {
        "x-query-virtio-vhost-queue-status": lambda arguments: (
            places if arguments["queue"] == 0 else missing
        ),
        "x-query-virtio-queue-status": lambda arguments: {1: QUEUE}[arguments["queue"]],
    }
    served, own = answered(found("disk0"), answers).queues
    assert (served.layout.size, served.layout.desc) == (128, 1 << 34)
    assert (served.layout.driver, served.layout.device) == (1 << 35, 1 << 36)
    assert (own.layout.size, own.layout.desc) == (256, 1 << 33)
    assert served.used is None


def test_a_driver_that_is_not_ready_has_no_queues() -> None:
    assert asked(status={"statuses": READY[:1]}) == ()


@pytest.mark.parametrize("name", ["IOMMU_PLATFORM", "ACCESS_PLATFORM"])
@pytest.mark.parametrize(
    "iommu", ["intel-iommu", "amd-iommu", "virtio-iommu-pci", "virtio-iommu", "arm-smmuv3"]
)
def test_addresses_behind_an_iommu_are_refused(name: str, iommu: str) -> None:
    words = {"transports": [f"VIRTIO_F_{name}: Device can be used"]}
    answers = machine("i8042", iommu, **{"guest-features": words})
    with pytest.raises(UnsupportedError) as caught:
        answered(found("disk0"), answers)
    assert caught.value.what == "reading the rings of disk0"
    assert caught.value.where == f"a VM whose {iommu.removesuffix('-pci')} translates its addresses"


def test_one_device_behind_an_iommu_does_not_hide_the_others() -> None:
    other = {"path": PATH.replace("disk0", "disk1")}
    answers = machine("intel-iommu")
    answers["x-query-virtio"].append(other)
    answers["x-query-virtio-status"] = lambda arguments: (
        status(**{"guest-features": PLATFORM}) if arguments == other else status()
    )
    survey = answered(found(), answers)
    assert [one.device for one in survey.queues] == ["disk0"]
    assert list(survey.unreadable) == ["disk1"]
    assert survey.unreadable["disk1"].what == "reading the rings of disk1"


def test_without_an_iommu_platform_addresses_are_the_guests_own() -> None:
    (one,) = asked(**{"guest-features": PLATFORM})
    assert one.layout.desc == 1 << 33


def test_big_endian_rings_are_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        asked(**{"device-endian": "big"})
    assert caught.value.where == "a big-endian guest"


def test_a_qemu_without_the_question_is_refused() -> None:
    unknown = CommandError("x-query-virtio", "CommandNotFound", "no")
    with pytest.raises(UnsupportedError) as caught:
        answered(found(), {"x-query-virtio": unknown})
    assert caught.value.what == "x-query-virtio"


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        answered(found("disk7"), {"x-query-virtio": [{"path": PATH}]})
    assert str(caught.value) == "device must be a virtio device of this VM (disk0), got 'disk7'"


@pytest.mark.parametrize(
    ("path", "id"),
    [
        (PATH, "disk0"),
        ("/machine/peripheral/vblk", "vblk"),
        ("/machine/peripheral-anon/device[3]/virtio-backend",
         "/machine/peripheral-anon/device[3]"),
    ],
)  # fmt: skip
def test_devices_are_named_as_in_the_description(path: str, id: str) -> None:
    assert device_id(path) == id


def test_features_are_collected_from_names_and_numbers() -> None:
    said = {
        "transports": ["VIRTIO_RING_F_EVENT_IDX: x", "VIRTIO_F_RING_PACKED: x"],
        "dev-features": ["VIRTIO_NET_F_MRG_RXBUF: x", "VHOST_F_LOG_ALL: x"],
        "unknown-dev-features": 1 << 40,
    }
    assert agreed("virtio-net", said) == 1 << 29 | PACKED | 1 << 15 | 1 << 40


def test_places_of_memory_are_understood() -> None:
    said = "Host virtual address for 0x100000000 (ram1) is 0x7f0000001000\r\n"
    at = answered(place(1 << 32), {"human-monitor-command": said})
    assert at == Place(1 << 32, 0x7F0000001000, "ram1")
    said = "Memory at address 0xa0000 is not RAM\r\n"
    assert answered(place(0xA0000), {"human-monitor-command": said}) is None


def test_modules_of_every_kind_are_found() -> None:
    devices = [
        {"type": "virtio-mem", "data": {"memaddr": 3 << 30, "size": 0, "max-size": 1 << 30,
                                        "memdev": "/objects/vmem0-memory"}},
        {"type": "dimm", "data": {"addr": 2 << 30, "size": 1 << 28, "memdev": "/objects/m"}},
    ]  # fmt: skip
    first, second = answered(modules(), {"query-memory-devices": devices})
    assert (first.guest, first.size, first.backend) == (2 << 30, 1 << 28, "/objects/m")
    assert (second.guest, second.size) == (3 << 30, 1 << 30)
