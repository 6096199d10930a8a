"""Each field of a disk, on each bus, as the options QEMU is given."""

from __future__ import annotations

import pytest
from support.parts import golden, needs

from pyvirt.disk import (
    CDROM,
    Disk,
    Floppy,
    HostDevice,
    Luks,
    Nbd,
    Null,
    Qcow2,
    Raw,
    Throttle,
    ThrottleGroup,
)
from pyvirt.disk.bus import DRIVERS
from pyvirt.qemu.need import TemporaryFile, TemporaryOverlay
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Part

PLAIN = {
    "driver": "qcow2",
    "node-name": "disk0-format",
    "file": {"driver": "file", "node-name": "disk0-file", "filename": "a.qcow2"},
}

SIZES = {
    "logical_block_size": 512,
    "physical_block_size": "4K",
    "min_io_size": "4K",
    "opt_io_size": "64K",
    "discard_granularity": 512,
}
SIZED = {
    "logical_block_size": 512,
    "physical_block_size": 4096,
    "min_io_size": 4096,
    "opt_io_size": 65536,
    "discard_granularity": 512,
}
GEOMETRY = {"cyls": 100, "heads": 16, "secs": 63}
ERRORS = {"werror": "stop", "rerror": "ignore"}

#: Every field that is a property of the device, by device: what is said, what QEMU is told.
EVERYTHING = {
    "virtio-blk": (
        {"bus": "virtio", "bootindex": 1, "serial": "S1", **SIZES, **GEOMETRY, **ERRORS,
         "share_rw": True, "queues": 3, "queue_size": 128, "packed": True, "iothread": "io0",
         "cache": "directsync"},
        {"driver": "virtio-blk-pci", "bootindex": 1, "serial": "S1", **SIZED, **GEOMETRY, **ERRORS,
         "share-rw": True, "num-queues": 3, "queue-size": 128, "packed": True, "iothread": "io0",
         "write-cache": "off"},
    ),
    "nvme": (
        {"bus": "nvme", "bootindex": 2, "serial": "S2", **SIZES, "share_rw": True, "queues": 3,
         "cache": "none"},
        {"driver": "nvme", "bootindex": 2, "serial": "S2", **SIZED, "share-rw": True,
         "max_ioqpairs": 3, "write-cache": "on"},
    ),
    "scsi-hd": (
        {"bus": "scsi", "bootindex": 3, "serial": "S3", "wwn": "0x5000c50015ea71ac",
         "vendor": "ACME", "product": "Rocket", "ver": "1.0", "rotation_rate": 7200,
         "removable": True, "dpofua": True, **SIZES, **GEOMETRY, **ERRORS, "share_rw": True,
         "cache": "writeback"},
        {"driver": "scsi-hd", "bootindex": 3, "serial": "S3", "wwn": 0x5000C50015EA71AC,
         "vendor": "ACME", "product": "Rocket", "ver": "1.0", "rotation_rate": 7200,
         "removable": True, "dpofua": True, **SIZED, **GEOMETRY, **ERRORS, "share-rw": True,
         "write-cache": "on"},
    ),
    "ide-hd": (
        {"bus": "sata", "bootindex": 4, "serial": "S4", "wwn": 5, "model": "Rocket disk",
         "ver": "1.0", "rotation_rate": 1, **SIZES, **GEOMETRY, **ERRORS, "share_rw": True,
         "cache": "writethrough"},
        {"driver": "ide-hd", "bootindex": 4, "serial": "S4", "wwn": 5, "model": "Rocket disk",
         "ver": "1.0", "rotation_rate": 1, **SIZED, **GEOMETRY, **ERRORS, "share-rw": True,
         "write-cache": "off"},
    ),
    "usb-storage": (
        {"bus": "usb", "bootindex": 5, "serial": "S5", "removable": True, **SIZES, **ERRORS,
         "share_rw": True, "cache": "unsafe"},
        {"driver": "usb-storage", "bootindex": 5, "serial": "S5", "removable": True, **SIZED,
         **ERRORS, "share-rw": True, "write-cache": "on"},
    ),
    "sd-card": ({"bus": "sd"}, {"driver": "sd-card"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", EVERYTHING)
def test_every_field_of_the_device(kind):
    said, told = EVERYTHING[kind]
    *_, (word, properties) = golden(Disk("a.qcow2", **said))
    assert word == "device"
    assert properties == {"id": "disk0", "drive": "disk0-format", **told}


@pytest.mark.parametrize("kind", EVERYTHING)
def test_the_table_above_leaves_no_field_out(kind):
    assert set(EVERYTHING[kind][0]) - {"bus"} == DRIVERS[kind].fields


def test_a_disk_says_no_more_than_it_was_told():
    assert golden(Disk("a.qcow2")) == [
        ("blockdev", PLAIN),
        ("device", {"driver": "virtio-blk-pci", "id": "disk0", "drive": "disk0-format"}),
    ]


@pytest.mark.parametrize(
    ("given", "node"),
    [
        ({"cache": "none"}, {"cache": {"direct": True}}),
        ({"cache": "writeback"}, {}),
        ({"cache": "writethrough"}, {}),
        ({"cache": "directsync"}, {"cache": {"direct": True}}),
        ({"cache": "unsafe"}, {"cache": {"no-flush": True}}),
        ({"readonly": True}, {"read-only": True}),
        ({"discard": "unmap"}, {"discard": "unmap"}),
        (
            {"discard": "unmap", "detect_zeroes": "unmap"},
            {"discard": "unmap", "detect-zeroes": "unmap"},
        ),
        ({"detect_zeroes": "on"}, {"detect-zeroes": "on"}),
        ({"aio": "threads"}, {"file": {**PLAIN["file"], "aio": "threads"}}),
        (
            {"aio": "native", "cache": "none"},
            {"cache": {"direct": True}, "file": {**PLAIN["file"], "aio": "native"}},
        ),
        ({"aio": "io_uring"}, {"file": {**PLAIN["file"], "aio": "io_uring"}}),
        ({"locking": "off"}, {"file": {**PLAIN["file"], "locking": "off"}}),
        ({"format": "vmdk"}, {"driver": "vmdk"}),
        ({"backing": None}, {"backing": None}),
    ],
)
def test_fields_of_the_node(given, node):
    blockdev = golden(Disk("a.qcow2", **given))[0]
    assert blockdev == ("blockdev", {**PLAIN, **node})


def test_a_backing_chain_has_numbered_names():
    disk = Disk("a.qcow2", backing=Qcow2("b.qcow2", backing=Raw("c.img", offset="1M", size=512)))
    assert golden(disk)[0][1]["backing"] == {
        "driver": "qcow2",
        "node-name": "disk0-backing1",
        "file": {"driver": "file", "node-name": "disk0-backing1-file", "filename": "b.qcow2"},
        "backing": {
            "driver": "raw",
            "node-name": "disk0-backing2",
            "file": {"driver": "file", "node-name": "disk0-backing2-file", "filename": "c.img"},
            "offset": 1 << 20,
            "size": 512,
        },
    }


@pytest.mark.parametrize(
    ("disk", "key"),
    [
        (Disk("a.luks", "luks", key="x"), {"key-secret": "disk0-secret"}),
        (Disk(Luks("a.luks", "x")), {"key-secret": "disk0-secret"}),
        (Disk("a", key="x"), {"encrypt": {"format": "luks", "key-secret": "disk0-secret"}}),
        (
            Disk("a", "qcow", key="x"),
            {"encrypt": {"format": "aes", "key-secret": "disk0-secret"}},
        ),
    ],
)
def test_a_key_is_a_secret_in_a_file(disk, key):
    (kind, secret), (_, blockdev), _ = golden(disk)
    assert kind == "object"
    assert secret == {"qom-type": "secret", "id": "disk0-secret", "file": "<disk0-secret>"}
    assert key.items() <= blockdev.items()
    assert needs(disk) == [TemporaryFile("disk0-secret", content=b"x")]


def test_a_key_is_never_shown(tmp_path):
    disk = Disk("a.luks", "luks", key="hunter2")
    for item in (disk, *disk.options(At("disk0"))):
        assert "hunter2" not in repr(item)


def test_a_key_may_be_the_path_of_its_file(tmp_path):
    disk = Disk("a.luks", "luks", key=tmp_path / "key")
    assert golden(disk)[0][1]["file"] == str(tmp_path / "key")
    assert needs(disk) == []


def test_an_iothread_of_its_own_comes_first():
    thread, _, device = golden(Disk("a.qcow2", iothread=True))
    assert thread == ("object", {"qom-type": "iothread", "id": "disk0-iothread"})
    assert device[1]["iothread"] == "disk0-iothread"


def test_a_throttle_is_a_filter_above_the_rest():
    limits = Throttle(bps_total="10M", bps_total_max="20M", bps_total_max_length=5, iops_read=100)
    disk = Disk("a.qcow2", throttle=limits, copy_on_read=True, discard="unmap", cache="none")
    assert golden(disk) == [
        (
            "object",
            {
                "qom-type": "throttle-group",
                "id": "disk0-throttle",
                "limits": {
                    "bps-total": 10 << 20,
                    "iops-read": 100,
                    "bps-total-max": 20 << 20,
                    "bps-total-max-length": 5,
                },
            },
        ),
        (
            "blockdev",
            {
                "driver": "throttle",
                "node-name": "disk0-throttle",
                "throttle-group": "disk0-throttle",
                "discard": "unmap",
                "file": {
                    "driver": "copy-on-read",
                    "node-name": "disk0-copy-on-read",
                    "discard": "unmap",
                    "file": {**PLAIN, "cache": {"direct": True}, "discard": "unmap"},
                },
            },
        ),
        (
            "device",
            {
                "driver": "virtio-blk-pci",
                "id": "disk0",
                "drive": "disk0-throttle",
                "write-cache": "on",
            },
        ),
    ]


def test_disks_share_a_group_by_its_id():
    assert golden(ThrottleGroup("slow", Throttle(iops_total=10, iops_size="4K"))) == [
        (
            "object",
            {
                "qom-type": "throttle-group",
                "id": "throttle0",
                "limits": {"iops-total": 10, "iops-size": 4096},
            },
        )
    ]
    (_, blockdev), _ = golden(Disk("a.qcow2", throttle="slow"))
    assert blockdev["throttle-group"] == "slow"


def test_every_limit_has_qemus_name():
    fields = [f"{w}_{r}{x}" for w in ("bps", "iops") for r in ("total", "read", "write")
              for x in ("", "_max", "_max_length")]  # fmt: skip
    assert {"iops-size", *(f.replace("_", "-") for f in fields)} == set(Throttle().all_limits)


def test_a_snapshot_writes_to_an_overlay():
    disk = Disk("a.qcow2", snapshot=True, cache="none", aio="native", discard="unmap", key="x")
    base = {
        **PLAIN,
        "cache": {"direct": True},
        "read-only": True,
        "file": {**PLAIN["file"], "aio": "native"},
        "encrypt": {"format": "luks", "key-secret": "disk0-secret"},
    }
    assert golden(disk)[1:] == [
        (
            "blockdev",
            {
                "driver": "qcow2",
                "node-name": "disk0-overlay",
                "cache": {"direct": False, "no-flush": True},
                "discard": "unmap",
                "file": {
                    "driver": "file",
                    "node-name": "disk0-overlay-file",
                    "filename": "<disk0-overlay>",
                },
                "backing": base,
            },
        ),
        (
            "device",
            {
                "driver": "virtio-blk-pci",
                "id": "disk0",
                "drive": "disk0-overlay",
                "write-cache": "on",
            },
        ),
    ]
    key, overlay = needs(disk)
    assert key.name == "disk0-secret"
    assert isinstance(overlay, TemporaryOverlay)
    assert overlay.name == "disk0-overlay"
    assert overlay.backing == base
    assert [option.id for option in overlay.objects] == ["disk0-secret"]


@pytest.mark.parametrize(
    ("part", "device"),
    [
        (CDROM(), {"driver": "ide-cd"}),
        (CDROM(bus="ide"), {"driver": "ide-cd"}),
        (CDROM(bus="scsi", vendor="ACME", wwn=7),
         {"driver": "scsi-cd", "vendor": "ACME", "wwn": 7}),
        (CDROM(bootindex=0, model="Reader"),
         {"driver": "ide-cd", "bootindex": 0, "model": "Reader"}),
        (CDROM(werror="stop", rerror="stop"),
         {"driver": "ide-cd", "werror": "stop", "rerror": "stop"}),
        (Floppy(), {"driver": "floppy"}),
        (Floppy(drive_type="144", share_rw=True),
         {"driver": "floppy", "drive-type": "144", "share-rw": True}),
    ],
)  # fmt: skip
def test_an_empty_drive_has_no_node(part, device):
    assert golden(part) == [("device", {"id": f"{part.prefix}0", **device})]


def test_a_cdrom_is_read_only():
    assert golden(CDROM("debian.iso")) == [
        (
            "blockdev",
            {
                "driver": "raw",
                "node-name": "cdrom0-format",
                "read-only": True,
                "file": {"driver": "file", "node-name": "cdrom0-file", "filename": "debian.iso"},
            },
        ),
        ("device", {"driver": "ide-cd", "id": "cdrom0", "drive": "cdrom0-format"}),
    ]


@pytest.mark.parametrize(("unit", "letter"), [(0, "A"), (1, "B")])
def test_a_floppys_boot_index_is_its_controllers(unit, letter):
    *_, device, order = golden(Floppy("f.img", bootindex=2), At("floppy0", {"unit": unit}))
    assert "bootindex" not in device[1]
    assert order[1] == {"driver": "isa-fdc", "property": f"bootindex{letter}", "value": 2}


@pytest.mark.parametrize(
    ("file", "format"),
    [
        ("a.img", "qcow2"),
        (HostDevice("/dev/sdb"), "raw"),
        (Nbd("host"), "raw"),
        (Null("1G"), "raw"),
        (Qcow2("a.qcow2"), "qcow2"),
        (Luks("a", "key"), "luks"),
        (Raw("a"), "raw"),
    ],
)
def test_the_format_that_is_meant(file, format):
    disk = Disk(file)
    assert disk.format == format
    assert golden(disk)[-2][1]["driver"] == format


def test_a_format_over_another():
    (_, _), (_, blockdev), _ = golden(Disk(Luks("a", "key"), "qcow2"))
    assert (blockdev["driver"], blockdev["file"]["driver"]) == ("qcow2", "luks")
    assert blockdev["file"]["file"]["node-name"] == "disk0-file-file"


@pytest.mark.parametrize("driver", ["scsi-block", "scsi-generic"])
def test_pass_through(driver):
    (_, blockdev), (_, device) = golden(Disk(HostDevice("/dev/sg1"), bus="scsi", driver=driver))
    assert blockdev["file"]["driver"] == "host_device"
    assert device["driver"] == driver


def test_virtio_follows_the_transport_of_its_place():
    disk = Disk("a.qcow2")
    *_, option = disk.options(At("disk0", {"bus": "virtio-mmio-bus.3"}, "mmio"))
    assert isinstance(option, Option)
    assert option.properties["driver"] == "virtio-blk-device"
    modern = Disk("a.qcow2", driver="virtio-blk-pci-non-transitional")
    assert golden(modern)[-1][1]["driver"] == modern.slot.driver == modern.driver


def test_properties_win():
    disk = Disk("a.qcow2", serial="x", properties={"serial": "y", "event_idx": False})
    assert {"serial": "y", "event_idx": False}.items() <= golden(disk)[-1][1].items()


@pytest.mark.parametrize(
    ("part", "bus", "driver", "unpluggable"),
    [
        (Disk("a"), "pci", "virtio-blk-pci", True),
        (Disk("a", bus="nvme"), "pci", "nvme", True),
        (Disk("a", bus="scsi", controller="megasas", alone=True), "scsi", "scsi-hd", True),
        (Disk("a", bus="ide"), "ide", "ide-hd", False),
        (Disk("a", bus="sata"), "sata", "ide-hd", False),
        (Disk("a", bus="usb"), "usb", "usb-storage", True),
        (Disk("a", bus="sd"), "sd", "sd-card", False),
        (Floppy(), "floppy", "floppy", False),
        (CDROM(), "sata", "ide-cd", False),
        (CDROM(bus="scsi"), "scsi", "scsi-cd", True),
    ],
)
def test_the_slot_that_is_wanted(part, bus, driver, unpluggable):
    slot = part.slot
    assert isinstance(part, Part)
    assert (slot.bus, slot.driver, slot.unpluggable, slot.group) == (
        bus, driver, unpluggable, "disk",
    )  # fmt: skip
    assert (slot.controller, slot.alone) == (part.controller, part.alone)


def test_nvme_always_has_a_serial_number():
    (_, _), (_, device) = golden(Disk("a", bus="nvme"), At("x" * 22))
    assert device["serial"] == "x" * 20


def test_the_repr_shows_what_was_given():
    assert repr(Disk("a", "raw", bus="scsi")) == "Disk('a', format='raw', bus='scsi')"
    assert repr(CDROM()) == "CDROM()"
