"""The conversation of a plug, stepped by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pyvirt import Disk, Machine
from pyvirt.errors import CommandError, UnsupportedError
from pyvirt.flows.plug import acquire, plug
from pyvirt.flows.steps import Acquire, Handed
from pyvirt.qemu.composition import Composition
from pyvirt.qemu.need import GivenFds
from pyvirt.qemu.topology import Topology


def conversation(controller: str, *, status: str = "running", refused: str = "") -> list[str]:
    """The commands of plugging a disk; QEMU refuses the device of driver `refused`."""
    machine = Machine("q35", hotplug_ports=2, hotplug_bridge=True)
    disk = Disk("disk.raw", "raw", bus="scsi", controller=controller)
    composition = Composition(Topology(machine))
    composition.topology.spares()
    flow = plug(composition.plug(disk, "disk0"))
    said = []
    step: Any = next(flow)
    try:
        while True:
            said.append(step.name)
            if step.name == "device_add" and step.arguments["driver"] == refused:
                step = flow.throw(CommandError(step.name, "GenericError", "no"))
            elif step.name == "device_del":
                step = flow.throw(CommandError(step.name, "DeviceNotFound", "gone"))
            else:
                step = flow.send({"status": status} if step.name == "query-status" else {})
    except (StopIteration, CommandError):
        return said


def test_a_guest_waits_while_a_controller_that_is_scanned_once_gets_its_disk() -> None:
    said = conversation("lsi53c895a")
    assert said.index("stop") < said.index("device_add")
    assert said.count("device_add") == 2
    assert said[-1] == "cont"


def test_a_paused_guest_stays_paused() -> None:
    said = conversation("lsi53c895a", status="paused")
    assert "query-status" in said
    assert not {"stop", "cont"} & set(said)


def test_controllers_that_tell_of_new_disks_need_no_pause() -> None:
    assert "stop" not in conversation("virtio-scsi-pci")


@pytest.mark.parametrize("driver", ["lsi53c895a", "scsi-hd"])
def test_a_refused_plug_lets_the_guest_go_on_before_it_is_undone(driver: str) -> None:
    said = conversation("lsi53c895a", refused=driver)
    assert said.count("stop") == said.count("cont") == 1
    assert said[said.index("cont") - 1] == "device_add"


def test_descriptors_go_to_qemu_by_name_and_are_then_its_alone() -> None:
    need = GivenFds("net", fds=(7, 8))
    flow = acquire(need)
    assert next(flow) == Acquire(need)
    sent = [flow.send(SimpleNamespace(values={"net": "9:10"}, fds=[9, 10])), flow.send({})]
    assert [(step.arguments["fdname"], step.fds) for step in sent] == [
        ("net-0", (9,)),
        ("net-1", (10,)),
    ]
    assert flow.send({}) == Handed("net")
    with pytest.raises(StopIteration) as ended:
        flow.send(None)
    assert ended.value.value == {"net": "net-0:net-1"}


def test_a_socket_that_listens_is_refused_before_qemu_loses_it() -> None:
    with pytest.raises(UnsupportedError) as caught:
        next(acquire(GivenFds("net", fds=(7,), inherited=True)))
    assert str(caught.value) == (
        "a socket that listens already is not available in a QEMU that runs; "
        "describe it from the start, or let QEMU listen at a path"
    )
