"""What is refused at birth, with its reason; and that QEMU would have refused it too."""

from __future__ import annotations

from typing import Any

import pytest
from support.qemu import Died, Refused, needs_qemu, start

from pyvirt.disk import (
    CDROM,
    Disk,
    File,
    Floppy,
    Format,
    HostCDROM,
    HostDevice,
    Iscsi,
    Luks,
    Nbd,
    Node,
    Null,
    Qcow2,
    Raw,
    Secret,
    Throttle,
    ThrottleGroup,
    Url,
)
from pyvirt.disk.remote import Gluster, Rbd, Ssh
from pyvirt.errors import SpecError
from pyvirt.qemu.option import Option

T = Throttle
REFUSED = [
    # what is made, the field that is wrong, the reason
    (lambda: Disk(""), "file", "must be a file name"),
    (lambda: Disk("a\0b"), "file", "must be a file name"),
    (lambda: Disk(7), "file", "must be a file name"),
    (lambda: Disk(None), "file", "must be a file name"),
    (lambda: Disk("a\udc80"), "file", "must be UTF-8, as QEMU's JSON is"),
    (lambda: File("a\udc80"), "filename", "must be UTF-8, as QEMU's JSON is"),
    (lambda: Disk("/dev/sdb"), "file", "is a device: write HostDevice(…) or File(…)"),
    (lambda: Disk("a", "q cow"), "format", "must start with a letter and hold only [A-Za-z0-9_.-]"),
    (lambda: Disk("a", bus="isa"), "bus",
     "must be one of virtio, nvme, scsi, ide, sata, usb, sd, floppy"),
    (lambda: CDROM(bus="virtio"), "bus", "must be one of sata, ide, scsi"),
    (lambda: CDROM("a", bus="nvme"), "bus", "must be one of sata, ide, scsi"),
    (lambda: Disk("a", driver="scsi-hd"), "driver", "must be virtio-blk on bus virtio"),
    (lambda: Disk("a", bus="scsi", driver="ide-hd"), "driver",
     "must be scsi-hd or scsi-block or scsi-generic on bus scsi"),
    (lambda: Disk("a", controller="megasas"), "controller",
     "is for buses with one, not virtio"),
    (lambda: Disk("a", bus="nvme", alone=True), "alone",
     "is for buses with a controller, not nvme"),
    (lambda: Disk("a", id="1a"), "id", "must start with a letter and hold only [A-Za-z0-9_.-]"),
    (lambda: Disk("a", id="d" * 25), "id",
     "must be shorter: QEMU's node names end at 31 characters"),
    (lambda: Disk("a", id="d" * 24, throttle=T(iops_total=1)), "id",
     "must be shorter: QEMU's node names end at 31 characters"),
    # the block layer
    (lambda: Disk("a", cache="fast"), "cache",
     "must be one of none, writeback, writethrough, directsync, unsafe"),
    (lambda: Disk("a", aio="native"), "aio", "may be native only with cache none or directsync"),
    (lambda: Disk("a", aio="native", cache="unsafe"), "aio",
     "may be native only with cache none or directsync"),
    (lambda: Disk(Qcow2("a", backing=Raw(File("b", aio="native")))), "aio",
     "may be native only with cache none or directsync"),
    (lambda: Disk(Nbd("h"), aio="threads"), "aio",
     "is for files and devices of this host, not nbd"),
    (lambda: Disk(File("a", locking="on"), locking="off"), "locking", "is on in the node"),
    (lambda: Disk("a", detect_zeroes="unmap"), "detect_zeroes",
     "may be unmap only with discard unmap"),
    (lambda: Disk("a", discard="on"), "discard", "must be one of ignore, unmap"),
    (lambda: Disk("a", copy_on_read=True, readonly=True), "copy_on_read",
     "writes, and may not be with readonly"),
    (lambda: Disk("a", snapshot=True, readonly=True), "snapshot",
     "is there to be written, not with readonly"),
    (lambda: Disk(Url("http://h/x")), "readonly",
     "must be True, or snapshot: http can only be read"),
    (lambda: Disk("a", "dmg"), "readonly", "must be True, or snapshot: dmg can only be read"),
    (lambda: Disk(HostCDROM("/dev/sr0")), "readonly",
     "must be True, or snapshot: host_cdrom can only be read"),
    (lambda: Disk("a", "raw", backing=None), "backing", "is for qcow2, qcow, qed, vmdk"),
    (lambda: Disk("a", backing="b"), "backing",
     "must say its format, as in Qcow2('base.qcow2')"),
    (lambda: Disk(Qcow2("a"), backing=None), "backing", "belongs into the qcow2 node here"),
    (lambda: Disk(Qcow2("a"), key="k"), "key", "belongs into the qcow2 node here"),
    (lambda: Disk("a", "luks"), "key", "must be given for luks"),
    (lambda: Luks("a", None), "key", "must be given for luks"),
    (lambda: Disk("a", "raw", key="k"), "key", "is for luks, qcow2 and qcow"),
    (lambda: Disk(Format("raw", "a", options={"discard": "unmap"}), discard="ignore"), "discard",
     "is set by the node as well"),
    (lambda: Raw("a", size=1000), "size", "must be a multiple of 512"),
    (lambda: Raw("a", size="1.5.5M"), "size", "must be bytes or text such as '512M'"),
    (lambda: Raw("a", offset=-1), "offset", f"must be from 0 to {2**63 - 1}"),
    (lambda: Qcow2("a", cache_size=1, l2_cache_size=1, refcount_cache_size=1), "cache_size",
     "may not be set with both l2_cache_size and refcount_cache_size"),
    (lambda: Qcow2("a", cache_size="1M", l2_cache_size="2M"), "l2_cache_size",
     f"may not exceed cache_size ({1 << 20})"),
    (lambda: Node("n b d"), "driver", "must start with a letter and hold only [A-Za-z0-9_.-]"),
    # the device
    (lambda: Disk("a", bus="scsi", iothread=True), "iothread",
     "belongs to the controller: describe that as a device and name its id"),
    (lambda: Disk("a", bus="scsi", queues=4), "queues",
     "belongs to the controller: describe that as a device and name its id"),
    (lambda: Disk("a", bus="sata", iothread=True), "iothread", "is for virtio-blk, not ide-hd"),
    (lambda: Disk("a", bus="sata", queues=4), "queues", "is for virtio-blk, nvme, not ide-hd"),
    (lambda: Disk("a", bus="nvme", queue_size=64), "queue_size", "is for virtio-blk, not nvme"),
    (lambda: Disk("a", bus="usb", packed=True), "packed", "is for virtio-blk, not usb-storage"),
    (lambda: Disk("a", wwn=1), "wwn", "is for ide-hd, ide-cd, scsi-hd, scsi-cd, not virtio-blk"),
    (lambda: Disk("a", wwn="many"), "wwn", "must be 64 bits, in hexadecimal when text"),
    (lambda: Disk("a", bus="sata", wwn=0), "wwn", f"must be from 1 to {2**64 - 1}"),
    (lambda: Disk("a", bus="nvme", werror="stop"), "werror",
     "is for ide-hd, ide-cd, scsi-hd, scsi-cd, scsi-block, virtio-blk, usb-storage, not nvme"),
    (lambda: Disk("a", bus="sd", serial="x"), "serial",
     "is for ide-hd, ide-cd, scsi-hd, scsi-cd, virtio-blk, nvme, usb-storage, not sd-card"),
    (lambda: Disk("a", rotation_rate=1), "rotation_rate",
     "is for ide-hd, scsi-hd, scsi-block, not virtio-blk"),
    (lambda: CDROM(vendor="x"), "vendor", "is for scsi-hd, scsi-cd, not ide-cd"),
    (lambda: Disk("a", queues=1025), "queues", "must be from 1 to 1024 on virtio-blk"),
    (lambda: Disk("a", queues=0), "queues", "must be from 1 to 65535"),
    (lambda: Disk("a", queue_size=100), "queue_size", "must be a power of two"),
    (lambda: Disk("a", queue_size=2), "queue_size", "must be from 4 to 1024"),
    (lambda: Disk("a", serial="s" * 21), "serial", "must be at most 20 characters on virtio-blk"),
    (lambda: Disk("a", bus="scsi", serial="s" * 37), "serial",
     "must be at most 36 characters on scsi-hd"),
    (lambda: Disk("a", serial="é"), "serial", "must be printable ASCII"),
    (lambda: Disk("a", bus="scsi", vendor="v" * 9), "vendor",
     "must be at most 8 characters on scsi-hd"),
    (lambda: Disk("a", logical_block_size=1000), "logical_block_size", "must be a power of two"),
    (lambda: Disk("a", physical_block_size=256), "physical_block_size",
     "must be from 512 to 2097152"),
    (lambda: Disk("a", logical_block_size=4096), "logical_block_size",
     "may not exceed physical_block_size (512)"),
    (lambda: Disk("a", min_io_size=700), "min_io_size",
     "must be a multiple of logical_block_size (512)"),
    (lambda: Disk("a", opt_io_size=700), "opt_io_size",
     "must be a multiple of logical_block_size (512)"),
    (lambda: Disk("a", discard_granularity=700), "discard_granularity",
     "must be a multiple of logical_block_size (512)"),
    (lambda: Disk("a", min_io_size="32M"), "min_io_size", "may not exceed 65535 logical blocks"),
    (lambda: Disk("a", bus="sata", logical_block_size=4096, physical_block_size=4096),
     "logical_block_size", "must be 512 on bus sata"),
    (lambda: Disk("a", bus="ide", discard_granularity=4096), "discard_granularity",
     "must be 512 on bus ide"),
    (lambda: Disk("a", bus="floppy", physical_block_size=1024), "physical_block_size",
     "must be 512 on bus floppy"),
    (lambda: Disk("a", cyls=100), "heads", "must be given with the rest of the geometry"),
    (lambda: Disk("a", bus="sata", cyls=1, heads=17, secs=1), "heads",
     "must be from 1 to 16 on ide-hd"),
    (lambda: Disk("a", bus="sata", readonly=True), "readonly", "is refused by ide-hd"),
    (lambda: Disk("a", bus="ide", readonly=True), "readonly", "is refused by ide-hd"),
    (lambda: Disk("a", bus="sd", readonly=True), "readonly", "is refused by sd-card"),
    (lambda: Disk("a", bus="sd", cache="writethrough"), "cache",
     "needs a write cache to switch off, not sd-card"),
    (lambda: CDROM(cache="none"), "cache", "is of the medium, and there is none"),
    (lambda: Floppy(readonly=True), "readonly", "is of the medium, and there is none"),
    (lambda: Disk("a", bus="scsi", driver="scsi-block"), "file",
     "must be a HostDevice, raw, for scsi-block"),
    (lambda: Disk(HostDevice("/dev/sdb"), bus="scsi", driver="scsi-block", throttle="slow"),
     "throttle", "would be passed by: scsi-block commands the device"),
    (lambda: Disk("a", throttle=5), "throttle",
     "must be a Throttle or the id of a ThrottleGroup"),
    (lambda: Disk("a", iothread="no id"), "iothread",
     "must start with a letter and hold only [A-Za-z0-9_.-]"),
    # limits
    (lambda: T(bps_total=1, bps_read=1), "bps_total",
     "may not be set together with bps_read or bps_write"),
    (lambda: T(iops_total=1, iops_write=1), "iops_total",
     "may not be set together with iops_read or iops_write"),
    (lambda: T(bps_read_max=9), "bps_read_max", "requires bps_read"),
    (lambda: T(bps_read=10, bps_read_max=9), "bps_read_max", "may not be lower than bps_read (10)"),
    (lambda: T(bps_read=10, bps_read_max_length=9), "bps_read_max_length",
     "requires bps_read_max"),
    (lambda: T(bps_read=10, bps_read_max=10**14, bps_read_max_length=11), "bps_read_max_length",
     "is too long for this burst rate"),
    (lambda: T(iops_size=4096), "iops_size", "requires an iops value to be set"),
    (lambda: T(bps_total=10**15 + 1), "bps_total", f"must be from 1 to {10**15}"),
    (lambda: ThrottleGroup("g", 5), "limits", "must be Throttle"),
    # servers
    (lambda: Nbd(), "host", "must be given, or path, and not both"),
    (lambda: Nbd("h", path="/p"), "host", "must be given, or path, and not both"),
    (lambda: Nbd("h", 70000), "port", "must be from 1 to 65535"),
    (lambda: Url("gopher://x"), "url", "must begin with http, https, ftp, ftps and ://"),
    (lambda: Url("http://x", sslverify=False), "sslverify", "is for https and ftps"),
    (lambda: Url("ftp://x", cookie="a"), "cookie", "is for http and https"),
    (lambda: Ssh("h", "/x", host_key_check="md5"), "host_key_check",
     "must be known_hosts, none or a fingerprint"),
    (lambda: Gluster("v", "p", []), "servers", "must name at least one"),
    (lambda: Gluster("v", "p", ["h:x"]), "servers", "must be host or host:port"),
    (lambda: Rbd("p", "i", servers="h"), "servers", "must be a list"),
    (lambda: Iscsi("p", "t", password=7), "password",
     "must be a passphrase or the Path of its file"),
    (lambda: Null(-1), "size", f"must be from 0 to {2**63 - 1}"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "field", "reason"),
    [pytest.param(*case, id=f"{n}-{case[1]}") for n, case in enumerate(REFUSED)],
)
def test_it_is_refused_and_says_why(make, field, reason):
    with pytest.raises(SpecError) as caught:
        make()
    assert (caught.value.field, caught.value.reason) == (field, reason)
    assert str(caught.value) == f"{field} {reason}, got {caught.value.value!r}"


def test_a_wrong_secret_is_not_repeated():
    with pytest.raises(SpecError) as caught:
        Luks("a", b"hunter2")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(Secret("hunter2"))


# That QEMU refuses what we refuse: its own words for the same thing, said to it directly.

BLOCKDEVS = [
    ({"file": {"aio": "native"}}, "requires cache.direct=on"),
    ({"detect-zeroes": "unmap"}, "without setting discard operation to unmap"),
    ({"size": 1000}, "not multiple of 512"),
    ({"node-name": "n" * 32}, "Node name too long"),
    ({"driver": "qcow2", "backing": None, "file": {"filename": "/dev/null"}}, "regular file"),
]
DEVICES = [
    ("virtio-blk-pci", {"num-queues": 0}, "larger than 0"),
    ("virtio-blk-pci", {"queue-size": 2}, "must be > 2"),
    ("virtio-blk-pci", {"queue-size": 100}, "must be a power of 2"),
    ("virtio-blk-pci", {"queue-size": 2048}, "max 1024"),
    ("nvme", {"serial": None}, "serial property not set"),
    ("nvme", {"serial": "x", "max_ioqpairs": 65536}, "between 1 and 65535"),
    ("virtio-blk-pci", {"logical_block_size": 1000}, "not a power of 2"),
    ("virtio-blk-pci", {"logical_block_size": 4096}, "logical_block_size > physical_block_size"),
    ("virtio-blk-pci", {"min_io_size": 700}, "must be a multiple"),
    ("virtio-blk-pci", {"min_io_size": 32 << 20}, "must not exceed 65535"),
    ("virtio-blk-pci", {"opt_io_size": 700}, "must be a multiple"),
    ("virtio-blk-pci", {"discard_granularity": 700}, "must be a multiple"),
    ("virtio-blk-pci", {"cyls": 100}, "heads must be between"),
    ("virtio-blk-pci", {"wwn": 1}, "not found"),
    ("nvme", {"werror": "stop", "serial": "x"}, "not found"),
    ("usb-storage", {"packed": True}, "not found"),
]
COLD = [
    ("ide-hd", {}, {"read-only": True}, "Block node is read-only"),
    ("sd-card", {}, {"read-only": True}, "Cannot use read-only drive"),
    ("ide-hd", {"discard_granularity": 4096}, {}, "must be 512 for ide"),
    ("ide-hd", {"cyls": 1, "heads": 17, "secs": 1}, {}, "between 1 and 16"),
    ("floppy", {"physical_block_size": 1024}, {}, "must be 512 for floppy"),
    ("ide-hd", {"logical_block_size": 4096, "physical_block_size": 4096}, {}, "multiple of"),
]
LIMITS = [
    {"bps-total": 1, "bps-read": 1},
    {"bps-read-max": 9},
    {"bps-read": 10, "bps-read-max": 9},
    {"bps-read": 10, "bps-read-max-length": 9},
    {"bps-read": 10, "bps-read-max": 10**14, "bps-read-max-length": 11},
    {"bps-total": 1, "iops-size": 4096},
    {"bps-total": 10**15 + 1},
]


@pytest.fixture(scope="module")
def qemu(tmp_path_factory):
    image = tmp_path_factory.mktemp("refusals") / "x"
    image.write_bytes(bytes(1 << 20))
    words = ("-device", "qemu-xhci,id=usb", "-device", "pcie-root-port,id=rp,chassis=1,slot=1")
    with start((), *words) as running:
        running.image = str(image)
        yield running


def node(image: str, **given: Any) -> dict[str, Any]:
    file = {"driver": "file", "filename": image, "locking": "off", **given.pop("file", {})}
    return {"driver": "raw", "node-name": "node", "file": file, **given}


@needs_qemu
@pytest.mark.parametrize(("given", "words"), BLOCKDEVS)
def test_qemu_refuses_the_node(qemu, given, words):
    with pytest.raises(Refused, match=words):
        qemu.cmd("blockdev-add", node(qemu.image, **given))


@needs_qemu
@pytest.mark.parametrize(("driver", "given", "words"), DEVICES)
def test_qemu_refuses_the_device(qemu, driver, given, words):
    qemu.cmd("blockdev-add", node(qemu.image))
    bus = "usb.0" if driver == "usb-storage" else "rp"
    given = {word: value for word, value in given.items() if value is not None}
    try:
        with pytest.raises(Refused, match=words):
            qemu.cmd("device_add", {"driver": driver, "drive": "node", "bus": bus, **given})
    finally:
        qemu.cmd("blockdev-del", {"node-name": "node"})


@needs_qemu
@pytest.mark.parametrize(("driver", "given", "flags", "words"), COLD)
def test_qemu_refuses_the_device_at_its_start(qemu, driver, given, flags, words):
    options = [
        Option("device", {"driver": "sdhci-pci"}),
        Option("blockdev", node(qemu.image, **flags)),
        Option("device", {"driver": driver, "drive": "node", **given}),
    ]
    with pytest.raises(Died, match=words):
        start(options, machine="pc")


@needs_qemu
@pytest.mark.parametrize("limits", LIMITS)
def test_qemu_refuses_the_limits(qemu, limits):
    with pytest.raises(Refused):
        qemu.cmd("object-add", {"qom-type": "throttle-group", "id": "g", "limits": limits})


@needs_qemu
def test_qemu_does_not_survive_too_many_queues(qemu):
    """It aborts ("n < VIRTIO_QUEUE_MAX"), so it must never be asked."""
    options = [
        Option("blockdev", node(qemu.image)),
        Option("device", {"driver": "virtio-blk-pci", "drive": "node", "num-queues": 1025}),
    ]
    with pytest.raises(Died):
        start(options)


@pytest.mark.parametrize("given", [{}, {"text": "a", "file": "b"}])
def test_a_secret_is_a_text_or_a_file(given):
    with pytest.raises(SpecError, match=r"^text or file must be given, and only one"):
        Secret(**given)
