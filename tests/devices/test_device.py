"""Any device by its name: its place, and the check against what QEMU says of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.qemu import Died, Refused, needs_qemu, start

from pyvirt.device import Device, bus_of
from pyvirt.errors import SpecError
from pyvirt.qemu.option import Late, Option
from pyvirt.qemu.part import At
from pyvirt.qemu.properties import check_properties, enumeration


def known(**types):
    """Properties by name, each a type or a type and a description."""
    pairs = {
        n.replace("_", "-"): t if isinstance(t, tuple) else (t, None) for n, t in types.items()
    }
    return {n: SimpleNamespace(name=n, type=t, description=d) for n, (t, d) in pairs.items()}


KNOWN = known(
    max_bytes="uint64",
    period="uint32",
    bootindex="int32",
    share="bool",
    size="size",
    mac=("str", "Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56"),
    werror=("BlockdevOnError", "Error handling policy, report/ignore/enospc/stop/auto"),
    addr=("int32", "Slot and optional function number, example: 06.0 or 06"),
    bar="child<memory-region>",
    rng="link<rng-backend>",
    clique="uint4",
    newer="list",
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max-bytes", 2**64 - 1),
        ("period", 0),
        ("bootindex", -1),
        ("share", False),
        ("size", 1 << 40),
        ("mac", "52:54:00:12:34:56"),
        ("werror", "enospc"),
        ("addr", "0x5.1"),
        ("addr", 40),
        ("rng", "rng0"),
        ("clique", 15),
        ("newer", [1, 2]),
        ("period", None),
        ("mac", Late("somewhere")),
        ("bus", "pcie.0"),
    ],
)
def test_what_fits(name, value):
    check_properties({name: value}, KNOWN)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("max_bytes", 1, "is not a property of the device; did you mean 'max-bytes'?"),
        ("perod", 1, "is not a property of the device; did you mean 'period'?"),
        ("xyzzy", 1, "is not a property of the device"),
        ("max-bytes", "1M", "must be an integer"),
        ("max-bytes", -1, f"must be from 0 to {2**64 - 1}"),
        ("period", 2**32, f"must be from 0 to {2**32 - 1}"),
        ("bootindex", 2**31, f"must be from {-(2**31)} to {2**31 - 1}"),
        ("bootindex", True, "must be an integer"),
        ("clique", 16, "must be from 0 to 15"),
        ("share", "on", "must be True or False"),
        ("size", "1M", "must be a size in bytes, as a number"),
        ("mac", 5, "must be text"),
        ("werror", "explode", "must be one of report, ignore, enospc, stop, auto"),
        ("werror", [], "must be one of report, ignore, enospc, stop, auto"),
        ("bar", "x", "is a part of the device and cannot be set"),
        ("rng", 1, "must be text"),
    ],
)
def test_what_does_not_fit_is_named(name, value, reason):
    with pytest.raises(SpecError) as caught:
        check_properties({name: value}, KNOWN)
    assert (caught.value.field, caught.value.reason) == (f"properties.{name}", reason)


@pytest.mark.parametrize(
    ("name", "bus"),
    [
        ("edu", "pci"),
        ("virtio-rng-pci", "pci"),
        ("usb-ehci", "pci"),
        ("ich9-usb-uhci1", "pci"),
        ("nec-usb-xhci", "pci"),
        ("usb-kbd", "usb"),
        ("scsi-hd", "scsi"),
        ("isa-debugcon", "isa"),
        ("sb16", "isa"),
        ("virtserialport", "virtio-serial"),
        ("hda-duplex", ""),
        ("intel-iommu", ""),
        ("vmgenid", ""),
        ("sd-card", "sd"),
        ("max-x86_64-cpu", ""),
    ],
)
def test_a_name_tells_its_bus(name, bus):
    assert bus_of(name) == bus
    assert Device(name).slot.bus == bus


def test_a_place_among_the_properties_is_pinned():
    device = Device("edu", {"bus": "pcie.0", "addr": "0x9"})
    assert device.slot.address == {"bus": "pcie.0", "addr": "0x9"}
    (option,) = device.options(At("edu0", device.slot.address))
    assert option.properties == {"driver": "edu", "id": "edu0", "bus": "pcie.0", "addr": "0x9"}


@pytest.mark.parametrize("word", ["id", "driver"])
def test_what_is_a_field_is_no_property(word):
    with pytest.raises(SpecError, match=f"properties must not hold '{word}': it is a field"):
        Device("edu", {word: "x"})


@pytest.fixture(scope="module")
def qemu():
    with start() as qemu:
        yield qemu


def listed(qemu, name):
    found = qemu.cmd("device-list-properties", typename=name)
    return {p["name"]: SimpleNamespace(**{"description": None, **p}) for p in found}


@needs_qemu
@pytest.mark.parametrize(
    ("name", "properties"),
    [
        ("virtio-rng-pci", {"max-bytes": "1024"}),
        ("virtio-rng-pci", {"max_bytes": 1024}),
        ("virtio-net-pci", {"mq": "on"}),
        ("virtio-blk-pci", {"werror": "explode"}),
        ("nvme", {"msix_qsize": 65536, "serial": "x"}),
        ("virtio-net-pci", {"speed": 2**31}),
        ("virtio-net-pci", {"mac": 5}),
    ],
)
def test_what_is_refused_here_is_refused_by_qemu(qemu, name, properties):
    with pytest.raises(SpecError):
        check_properties(properties, listed(qemu, name))
    with pytest.raises(Refused):
        qemu.cmd("device_add", driver=name, **properties)
    with pytest.raises(Died):
        start([Option("device", {"driver": name, **properties})])


@needs_qemu
def test_qemu_tells_the_words_of_its_enumerations(qemu):
    found = listed(qemu, "virtio-blk-pci")
    assert enumeration(found["werror"]) == ("report", "ignore", "enospc", "stop", "auto")
    assert enumeration(found["drive"]) == ()


@needs_qemu
def test_names_and_properties_complete():
    probe = pytest.importorskip("pyvirt.running.host.probe")
    capabilities = probe.probe("qemu-system-x86_64")
    names = Device.names(capabilities)
    assert {"edu", "virtio-rng-pci", "virtio-blk", "usb-kbd"} <= set(names)
    assert "max-bytes" in Device.properties_of("virtio-rng-pci", capabilities)
    Device("edu", {"dma_mask": 4095}).check(capabilities)
    with pytest.raises(SpecError, match="did you mean 'dma_mask'"):
        Device("edu", {"dma-mask": 4095}).check(capabilities)
