"""Described disks on a real QEMU: what it says of them is what was described."""

from __future__ import annotations

import lzma
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from disk_images import MIB, qcow2, raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.parts import Lab, expected, golden, running
from support.qemu import Qemu, needs_qemu, start

from pyvirt.disk import (
    CDROM,
    Disk,
    Drive,
    Floppy,
    Format,
    Luks,
    Nbd,
    Node,
    Null,
    Qcow2,
    Raw,
    Throttle,
    ThrottleGroup,
)
from pyvirt.disk.bus import BUSES, DRIVERS
from pyvirt.qemu.part import At

pytestmark = needs_qemu

SIZES = {
    "physical_block_size": "4K",
    "min_io_size": "4K",
    "opt_io_size": "64K",
    "logical_block_size": 512,
    "discard_granularity": 512,
}
GEOMETRY = {"cyls": 100, "heads": 16, "secs": 63}
ERRORS = {"werror": "stop", "rerror": "ignore"}
CONTROLLERS = ("lsi53c895a", "lsi53c810", "am53c974", "megasas", "megasas-gen2", "pvscsi",
               "virtio-scsi-pci")  # fmt: skip
LIMITS = Throttle(bps_read="1M", bps_read_max="2M", bps_read_max_length=3, iops_total=50)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tmp_path_factory.mktemp("disks")


def rich(files, stem: str) -> Iterator[Disk]:
    """A disk with as many fields as fit on each bus that takes disks while a guest runs."""

    def image(bus: str):
        return qcow2(files / f"{stem},{bus}.qcow2")

    common: dict[str, Any] = {**SIZES, "share_rw": True}
    yield Disk(image("virtio"), id=f"{stem}-virtio", serial="S1", queues=3, queue_size=128,
               packed=True, iothread=True, cache="directsync", discard="unmap",
               detect_zeroes="unmap", throttle=LIMITS, **common, **GEOMETRY, **ERRORS)  # fmt: skip
    yield Disk(image("nvme"), bus="nvme", id=f"{stem}-nvme", serial="S2", queues=3, cache="none",
               aio="io_uring", **common)  # fmt: skip
    yield Disk(image("scsi"), bus="scsi", id=f"{stem}-scsi", serial="S3", wwn="0x5000c50015ea71ac",
               vendor="ACME", product="Rocket", ver="1.0", rotation_rate=7200, removable=True,
               dpofua=True, cache="unsafe", copy_on_read=True, **common, **GEOMETRY,
               **ERRORS)  # fmt: skip
    yield Disk(image("usb"), bus="usb", id=f"{stem}-usb", serial="S5", removable=True,
               cache="writethrough", aio="threads", snapshot=True, **common, **ERRORS)  # fmt: skip


def fixed(files) -> Iterator[Drive]:
    """Drives on the buses that take nothing while a guest runs, and every SCSI controller."""

    def image(name: str, size: int = 4 * MIB):
        return raw(files / f"{name}.img", size)

    more = {"serial": "S4", "model": "Rocket", "ver": "1.0", "wwn": 5, "rotation_rate": 1}
    yield Disk(image("ide"), "raw", bus="ide", id="ide0", cache="none", aio="native", bootindex=4,
               **more, **SIZES, **GEOMETRY, **ERRORS)  # fmt: skip
    yield Disk(image("sata"), "raw", bus="sata", id="sata0", cache="writethrough", **more)
    yield Disk(image("sd"), "raw", bus="sd", id="sd0", cache="none")
    yield Floppy(image("floppy", 1440 << 10), id="fd0", readonly=True, bootindex=7)
    yield Floppy(id="fd1", drive_type="144")
    yield CDROM(id="cd0")
    yield CDROM(image("iso"), id="cd1", bus="ide", bootindex=1, serial="S6", cache="none")
    yield CDROM(id="cd2", bus="scsi", vendor="ACME", product="Reader")
    for model in CONTROLLERS:
        yield Disk(image(model), "raw", bus="scsi", controller=model, id=f"on-{model}")
    yield Disk(image("alone"), "raw", bus="scsi", alone=True, id="alone")


def agrees(lab: Lab, drive: Drive, name: str) -> None:
    """QEMU's device and nodes are what `drive` describes."""
    device = dict(expected(drive, name))
    assert medium(lab.qemu, name) == device.pop("drive", None)
    for word, value in device.items():
        assert normal(word, lab.qemu.get(name, word)) == value, (name, word)
    present = {node["node-name"]: node for node in lab.qemu.cmd("query-named-block-nodes")}
    for kind, properties in golden(drive, At(name)):
        if kind == "blockdev":
            node_agrees(present, properties, {})


def medium(qemu: Qemu, name: str) -> str | None:
    """The node in a drive; a USB stick has it in a SCSI disk of its own."""
    for block in qemu.cmd("query-block"):
        if block["qdev"] == name or block["qdev"].startswith(f"/machine/peripheral/{name}/"):
            return block.get("inserted", {}).get("node-name")
    raise AssertionError(f"{name} is no drive")


def normal(word: str, value: Any) -> Any:
    if word == "iothread":
        return value.removeprefix("/objects/")
    return value


def node_agrees(present: Mapping[str, Any], node: Mapping[str, Any], above: dict[str, Any]) -> None:
    seen = present[node["node-name"]]
    assert seen["drv"] == node["driver"]
    cache = {**above, **node.get("cache", {})}
    for flag in ("direct", "no-flush"):
        assert seen["cache"][flag] == cache.get(flag, False)
    assert seen["detect_zeroes"] == node.get("detect-zeroes", "off")
    if "read-only" in node:
        assert seen["ro"] == node["read-only"]
    if node["driver"] == "file" and not node["filename"].startswith("<"):
        assert seen["file"] == node["filename"]
    for key in ("file", "backing"):
        if node.get(key) is not None:
            node_agrees(present, node[key], cache)


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_what_qemu_has_is_what_was_described(files, machine):
    drives = [*fixed(files), *rich(files, "cold")]
    with running(*drives, machine=machine) as lab:
        for drive in drives:
            agrees(lab, drive, str(drive.id))
        limits = lab.qemu.get("/objects/cold-virtio-throttle", "limits")
        assert limits == LIMITS.all_limits
        for disk in drives:
            if disk.controller:
                assert controller(lab, str(disk.id)) == disk.controller
        assert bus(lab, "alone") not in {bus(lab, str(d.id)) for d in drives if d.id != "alone"}
        assert lab.qemu.get(floppy_controller(lab.qemu), "bootindexA") == 7


def floppy_controller(qemu: Qemu) -> str:
    for path in ("/machine/unattached", "/machine/peripheral"):
        for item in qemu.cmd("qom-list", path=path):
            if item["type"] == "child<isa-fdc>":
                return f"{path}/{item['name']}"
    raise AssertionError("no floppy controller")


def bus(lab: Lab, name: str) -> str:
    path: str = lab.qemu.get(name, "parent_bus")
    return path


def controller(lab: Lab, name: str) -> str:
    """The model of the controller that disk `name` hangs on."""
    parent = bus(lab, name).rpartition("/")[0]
    while "parent_bus" not in properties_of(lab.qemu, parent) or parent.endswith("virtio-backend"):
        parent = parent.rpartition("/")[0]
    model: str = lab.qemu.get(parent, "type")
    return model


def properties_of(qemu: Qemu, path: str) -> set[str]:
    if not path.startswith("/"):
        path = f"/machine/peripheral/{path}"
    return {item["name"] for item in qemu.cmd("qom-list", path=path)}


def test_a_plugged_disk_is_the_same_as_one_there_from_the_start(files):
    cold, hot = list(rich(files, "was")), list(rich(files, "new"))
    with running(*cold) as lab:
        for disk in hot:
            lab.plug(disk)
        for there, plugged in zip(cold, hot, strict=True):
            agrees(lab, plugged, str(plugged.id))
            assert readings(lab.qemu, str(plugged.id)) == readings(lab.qemu, str(there.id))


#: What differs between two devices because there are two.
OWN = {"addr", "drive", "hotplugged", "port", "scsi-id"}


def readings(qemu: Qemu, name: str) -> dict[str, Any]:
    """All readable properties of a device, save its place."""
    values = {}
    for item in qemu.cmd("qom-list", path=f"/machine/peripheral/{name}"):
        if item["name"].startswith("legacy-") or item["name"] in OWN or "<" in item["type"]:
            continue
        values[item["name"]] = qemu.get(name, item["name"])
    return values


@pytest.mark.parametrize("bus", [bus for bus in BUSES if BUSES[bus].unpluggable])
def test_a_plugged_disk_goes_without_a_trace(files, bus):
    more = {"iothread": True} if bus == "virtio" else {}
    disk = Disk(qcow2(files / f"x {bus}"), bus=bus, id="x", throttle=LIMITS, **more)
    with running(Disk(Null("1M"), bus="scsi"), Disk(Null("1M"), bus="usb")) as lab:
        before = trace(lab.qemu)
        lab.plug(disk)
        assert trace(lab.qemu) != before
        lab.qemu.cmd("device_del", id="x")
        if BUSES[bus].slot == "pci":
            lab.qemu.cmd("system_reset")  # No guest is there to let go of it.
        lab.qemu.wait("DEVICE_DELETED", device="x")
        for kind, made in reversed(list(golden(disk, At("x")))):
            if kind == "blockdev":
                lab.qemu.cmd("blockdev-del", {"node-name": made["node-name"]})
            elif kind == "object":
                lab.qemu.cmd("object-del", {"id": made["id"]})
        assert trace(lab.qemu) == before


def trace(qemu: Qemu) -> set[str]:
    nodes = {node["node-name"] for node in qemu.cmd("query-named-block-nodes")}
    objects = {item["name"] for item in qemu.cmd("qom-list", path="/objects")}
    return (
        nodes
        | objects
        | {item["name"] for item in qemu.cmd("qom-list", path="/machine/peripheral")}
    )


def test_nodes_and_formats_that_qemu_opens(files):
    base = qcow2(files / "base.qcow2")
    middle = qcow2(files / "middle.qcow2", "-b", str(base), "-F", "qcow2")
    top = qcow2(files / "top.qcow2", "-b", str(middle), "-F", "qcow2")
    luks, sealed = unpacked(files, "x.luks"), unpacked(files, "sealed.qcow2")
    (files / "key").write_text("opensesame")
    made = []
    for driver in ("vmdk", "vdi", "vpc", "vhdx", "qed", "parallels", "qcow"):
        path = files / f"x.{driver}"
        subprocess.run(["qemu-img", "create", "-q", "-f", driver, path, "4M"], check=True)
        made.append(Disk(path, driver, id=driver, bus="scsi"))
    said = Qcow2(top, backing=Qcow2(middle, backing=Qcow2(base)))
    own = Disk(luks, "luks", key="opensesame", snapshot=True, id="own", locking="off", bus="scsi")
    disks = [
        *made,
        own,
        Disk(top, id="from-image", readonly=True, bus="scsi"),
        Disk(said, id="said", readonly=True, bus="scsi"),
        Disk(middle, backing=None, id="without", readonly=True, bus="scsi"),
        Disk(luks, "luks", key="opensesame", id="luks", bus="scsi"),
        Disk(Luks(luks, files / "key"), id="luks2", bus="scsi", readonly=True, locking="off"),
        Disk(sealed, key="opensesame", id="sealed", bus="scsi"),
        Disk(Raw(raw(files / "window"), offset="1M", size="2M"), id="window", bus="scsi"),
        Disk(Null("1G", latency_ns=10), id="null", bus="scsi"),
        Disk(Node("blkdebug", {"image": Null("8M"), "align": 4096}), id="debug", bus="scsi"),
        Disk(Qcow2(raw_backed(files), data_file=raw(files / "data.raw")), id="data", bus="scsi"),
        Disk(Format("raw", raw(files / "fmt"), options={"offset": 512}), id="format", bus="scsi"),
    ]  # fmt: skip
    with running(*disks) as lab:
        for disk in disks:
            agrees(lab, disk, str(disk.id))
        size = {block["qdev"]: block["inserted"]["image"]["virtual-size"]
                for block in lab.qemu.cmd("query-block")}  # fmt: skip
        assert (size["window"], size["null"], size["debug"]) == (2 * MIB, 1 << 30, 8 * MIB)
        assert size["own"] == size["luks"] == size["sealed"] == MIB
        depths = {node["node-name"]: depth(node["image"]) for node in
                  lab.qemu.cmd("query-named-block-nodes")}  # fmt: skip
        assert depths["from-image-format"] == depths["said-format"] == 2
        assert depths["without-format"] == 0


def unpacked(files: Path, name: str) -> Path:
    """An image with the key "opensesame", made by qemu-img, which takes seconds for one."""
    packed = Path(__file__).with_name("images") / f"{name}.xz"
    path = files / name
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


def raw_backed(files):
    path = files / "external.qcow2"
    data = raw(files / "data.raw")
    return qcow2(path, "-o", f"data_file={data},data_file_raw=on")


def depth(image: Mapping[str, Any]) -> int:
    below = image.get("backing-image")
    return 0 if below is None else 1 + depth(below)


def test_an_nbd_export_is_a_disk(files):
    socket = files / "nbd,1.sock"
    exported = raw(files / "exported", 8 * MIB)
    pid = files / "nbd.pid"
    words = ["qemu-nbd", "--fork", "-t", f"--pid-file={pid}", "-k", str(socket), "-f", "raw"]
    subprocess.run([*words, "-x", "a b,c", str(exported)], check=True)
    disk = Disk(Nbd(path=str(socket), export="a b,c"), id="nbd")
    try:
        with running(disk) as lab:
            agrees(lab, disk, "nbd")
            (block,) = lab.qemu.cmd("query-block")
            assert block["inserted"]["image"]["virtual-size"] == 8 * MIB
    finally:
        os.kill(int(pid.read_text()), signal.SIGTERM)


def test_a_snapshot_leaves_its_image_as_it_was(files):
    image = raw(files / "precious", 2 * MIB)
    with running(Disk(image, "raw", snapshot=True, id="s", bus="scsi")) as lab:
        lab.qemu.hmp('qemu-io -d s "write -P 7 0 64k"')
        assert bytes([7]) * 65536 in lab.path("s-overlay").read_bytes()
    assert image.read_bytes() == bytes(2 * MIB)


def test_a_group_is_shared(files):
    group = ThrottleGroup("slow", Throttle(iops_total=10))
    disks = [Disk(Null("1M"), throttle="slow", id=f"d{n}") for n in range(2)]
    with running(group, *disks) as lab:
        for disk in disks:
            agrees(lab, disk, str(disk.id))
        assert lab.qemu.get("/objects/slow", "limits") == Throttle(iops_total=10).all_limits


@pytest.mark.parametrize("kind", [kind for kind in DRIVERS if kind != "virtio-blk"])
def test_the_tables_name_properties_that_devices_have(kind, tables):
    driver = DRIVERS[kind]
    words = {driver.word(name) for name in driver.fields}
    words -= {"bootindex"} if kind == "floppy" else set()
    assert words <= {item["name"] for item in tables.cmd("device-list-properties", typename=kind)}


@pytest.mark.parametrize("kind", ["virtio-blk-pci", "virtio-blk-device"])
def test_the_tables_name_properties_of_virtio_on_each_transport(kind, tables):
    words = {DRIVERS["virtio-blk"].word(name) for name in DRIVERS["virtio-blk"].fields}
    assert words <= {item["name"] for item in tables.cmd("device-list-properties", typename=kind)}


@pytest.fixture(scope="module")
def tables():
    with start(machine="none") as qemu:
        yield qemu


name_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1)


@pytest.fixture(scope="module")
def plain():
    with start() as qemu:
        yield qemu


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=name_text.filter(lambda name: name not in (".", "..") and len(name.encode()) < 200))
def test_any_file_name_reaches_qemu(name, plain, files):
    path = raw(files / name)
    for kind, node in golden(Disk(path, "raw"), At("any")):
        if kind == "blockdev":
            plain.cmd("blockdev-add", node)
    (seen,) = [n for n in plain.cmd("query-named-block-nodes") if n["node-name"] == "any-file"]
    plain.cmd("blockdev-del", {"node-name": "any-format"})
    path.unlink()
    assert seen["file"] == str(path)


@pytest.fixture(scope="module")
def scsi():
    with start((), "-device", "virtio-scsi-pci,id=scsi") as qemu:
        qemu.cmd("blockdev-add", {"driver": "null-co", "node-name": "null", "read-zeroes": True})
        yield qemu


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8))
def test_any_text_reaches_the_device(text, scsi):
    disk = Disk(Null("1M"), bus="scsi", id="any", serial=text, vendor=text, product=text)
    *_, (_, device) = golden(disk, At("any", {"bus": "scsi.0"}))
    scsi.cmd("device_add", {**device, "drive": "null"})
    seen = {word: scsi.get("any", word) for word in ("serial", "vendor", "product")}
    scsi.cmd("device_del", {"id": "any"})
    scsi.wait("DEVICE_DELETED", device="any")
    assert seen == {"serial": text, "vendor": text, "product": text}


NAMES = ["a,b=c", "json:{}", "nbd:host:1", "file:x", 'q"uo\'te', "new\nline", "☃ ü", " ", "a\\b",
         "fat:rw:x", "-option", "%s$(x)`y`", "x,,y", "\t\x1b[1m"]  # fmt: skip


def test_hostile_file_names_survive_the_command_line(files):
    disks = [Disk(raw(files / name), "raw", bus="scsi", id=f"n{n}") for n, name in enumerate(NAMES)]
    with running(*disks) as lab:
        seen = {b["qdev"]: b["inserted"]["image"]["filename"] for b in lab.qemu.cmd("query-block")}
        assert seen == {f"n{n}": str(files / name) for n, name in enumerate(NAMES)}
