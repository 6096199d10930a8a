"""Medium, size and limits of a running drive, on a real QEMU and step by step."""

from __future__ import annotations

import pytest
from disk_images import MIB, qcow2, raw
from support.parts import golden, running
from support.qemu import Refused, needs_qemu

from pyvirt.disk import CDROM, Disk, Floppy, Throttle
from pyvirt.disk.flows import (
    eject,
    insert,
    medium_name,
    resize,
    throttle,
    throttle_group,
)
from pyvirt.errors import CommandError, SpecError, TimedOut
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At
from pyvirt.qmp.flow import Command, Event, Until


def drive(qemu, flow):
    """Run a flow on a real QEMU."""
    answer, error = None, None
    while True:
        try:
            step = flow.throw(error) if error is not None else flow.send(answer)
        except StopIteration as end:
            return end.value
        assert isinstance(step, Command)
        answer, error = None, None
        try:
            answer = qemu.cmd(step.name, step.arguments)
        except Refused as refused:
            error = CommandError(refused.command, refused.kind, refused.desc)


def options(drive, name):
    return [option for option in drive.medium(name) if isinstance(option, Option)]


def inside(qemu, device):
    (block,) = [b for b in qemu.cmd("query-block") if b["qdev"] == device]
    return block.get("inserted", {}).get("node-name"), block.get("tray_open", False)


def nodes(qemu):
    return {node["node-name"] for node in qemu.cmd("query-named-block-nodes")}


def objects(qemu):
    return {item["name"] for item in qemu.cmd("qom-list", path="/objects")}


@needs_qemu
def test_media_come_and_go(tmp_path):
    empty = [
        CDROM(id="sata"),
        CDROM(id="pata", bus="ide"),
        CDROM(id="scsi", bus="scsi"),
        Floppy(id="fd"),
    ]
    with running(*empty) as lab:
        before = objects(lab.qemu)
        for part in empty:
            device, kind = str(part.id), type(part)
            first = options(kind(raw(tmp_path / f"{device} 1")), medium_name(device, ()))
            drive(lab.qemu, insert(device, first, {}))
            assert inside(lab.qemu, device) == (f"{device}-format", False)
            limits = Throttle(iops_total=9)
            other = kind(raw(tmp_path / f"{device} 2"), throttle=limits)
            second = options(other, medium_name(device, first))
            drive(lab.qemu, insert(device, second, {}, present=first))
            assert inside(lab.qemu, device) == (f"{device}-next-throttle", False)
            third = options(kind(raw(tmp_path / f"{device} 3")), medium_name(device, second))
            drive(lab.qemu, insert(device, third, {}, present=second, force=True))
            assert inside(lab.qemu, device) == (f"{device}-format", False)
            drive(lab.qemu, eject(device, present=third))
            assert inside(lab.qemu, device) == (None, kind is CDROM)
        assert nodes(lab.qemu) == set()
        assert objects(lab.qemu) == before


@needs_qemu
def test_a_medium_that_cannot_be_opened_leaves_the_old_one(tmp_path):
    there = CDROM(raw(tmp_path / "a"), id="cd")
    with running(there) as lab:
        before = objects(lab.qemu)
        present = options(there, "cd")
        missing = CDROM(tmp_path / "missing", throttle=Throttle(iops_total=1))
        medium = options(missing, medium_name("cd", present))
        with pytest.raises(CommandError, match="No such file"):
            drive(lab.qemu, insert("cd", medium, {}, present=present))
        assert inside(lab.qemu, "cd") == ("cd-format", False)
        assert nodes(lab.qemu) == {"cd-format", "cd-file"}
        assert objects(lab.qemu) == before


def test_a_locked_tray_is_waited_for():
    flow = eject("cd", timeout=5)
    assert flow.send(None) == Command("blockdev-open-tray", {"id": "cd"})
    locked = CommandError(
        "blockdev-open-tray",
        "GenericError",
        "Device 'cd' is locked and force was not specified, wait for tray to open and try again",
    )
    moved = {"id": "cd", "tray-open": True}
    assert flow.throw(locked) == Until("DEVICE_TRAY_MOVED", moved, 5)
    step = flow.send(Event("DEVICE_TRAY_MOVED", moved))
    assert step == Command("blockdev-remove-medium", {"id": "cd"})
    with pytest.raises(StopIteration):
        flow.send({})


def test_a_guest_that_keeps_the_tray_shut_keeps_its_medium():
    flow = insert("cd", [Option("blockdev", {"driver": "null-co", "node-name": "cd-next"})], {})
    assert flow.send(None).name == "blockdev-add"
    assert flow.send({}).name == "blockdev-open-tray"
    flow.throw(
        CommandError("blockdev-open-tray", "GenericError", "Device 'cd' is locked and so on")
    )
    assert flow.throw(TimedOut("tray", 5)) == Command("blockdev-del", {"node-name": "cd-next"})
    with pytest.raises(TimedOut):
        flow.send({})


@needs_qemu
def test_resize_and_limits_on_each_bus(tmp_path):
    limits = Throttle(bps_read="1M", bps_read_max="2M", bps_read_max_length=3, iops_total=50,
                      iops_size="4K")  # fmt: skip
    disks = [
        Disk(
            qcow2(tmp_path / bus), bus=bus, id=bus, throttle=Throttle(iops_write=5) if own else None
        )
        for bus, own in [("virtio", True), ("scsi", False), ("usb", False), ("sata", True)]
    ]
    with running(*disks, Disk(qcow2(tmp_path / "n"), bus="nvme", id="nvme"), CDROM(id="cd")) as lab:
        for disk in disks:
            drive(lab.qemu, resize(str(disk.id), 8 * MIB))
            drive(lab.qemu, throttle(str(disk.id), limits))
            assert limited(lab.qemu, disk) == limits.all_limits
            drive(lab.qemu, throttle(str(disk.id), Throttle()))
            assert limited(lab.qemu, disk) == Throttle().all_limits
        drive(lab.qemu, throttle("nvme", limits))
        sizes = [b["inserted"]["image"]["virtual-size"] for b in lab.qemu.cmd("query-block")
                 if "inserted" in b]  # fmt: skip
        assert sorted(sizes) == [4 * MIB, *[8 * MIB] * 4]
        with pytest.raises(CommandError):
            drive(lab.qemu, resize("nvme", 8 * MIB))
        with pytest.raises(SpecError, match="device must have a medium"):
            drive(lab.qemu, resize("cd", 8 * MIB))
        with pytest.raises(SpecError, match="device must be a drive of this VM"):
            drive(lab.qemu, resize("vir", 8 * MIB))
        drive(lab.qemu, throttle_group("virtio-throttle", limits))
        assert limited(lab.qemu, disks[0]) == limits.all_limits


def limited(qemu, disk):
    """The limits of a disk's own group, or those that ``query-block`` shows."""
    if disk.throttle is not None:
        return qemu.get(f"/objects/{disk.id}-throttle", "limits")
    for block in qemu.cmd("query-block"):
        if str(disk.id) in block["qdev"].split("/"):
            shown = block["inserted"]
    found = {"iops-size": shown.get("iops_size", 0)}
    for what in ("bps", "iops"):
        for which, short in (("total", ""), ("read", "_rd"), ("write", "_wr")):
            found[f"{what}-{which}"] = shown[f"{what}{short}"]
            found[f"{what}-{which}-max"] = shown.get(f"{what}{short}_max", 0)
            found[f"{what}-{which}-max-length"] = shown.get(f"{what}{short}_max_length", 1)
    return found


def test_the_names_of_media_alternate():
    cdrom = CDROM("a.iso", throttle=Throttle(iops_total=1))
    first = options(cdrom, "cd")
    assert medium_name("cd", ()) == "cd"
    assert medium_name("cd", first) == "cd-next"
    assert medium_name("cd", [*cdrom.options(At("cd"))]) == "cd-next"
    assert medium_name("cd", options(cdrom, "cd-next")) == "cd"
    names = {option.id for option in first} & {option.id for option in options(cdrom, "cd-next")}
    assert names == set()
    with pytest.raises(SpecError, match="file must be given for a medium"):
        options(CDROM(), "cd")
    assert golden(CDROM("a.iso"))[-1][0] == "device"
