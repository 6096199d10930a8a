"""Network cards as options: every field, and every combination that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyvirt.errors import SpecError
from pyvirt.nic import Control, Hub, Nic, Offloads, Passt, Rate, Stream, Tap, Unix, User, VhostUser
from pyvirt.nic.model import INTEL_8254X, INTEL_8255X, MODELS
from pyvirt.qemu.part import Adjusted, At, Part
from pyvirt.qemu.render import argv
from pyvirt.qmp.flow import Command

MAC = "52:54:00:00:00:01"
AT = At("nic0", {"bus": "pcie.0", "addr": "0x5"}, vm="vm")


def made(nic: Nic, at: At = AT) -> dict:
    """The properties of the device that `nic` becomes, without those all cards have."""
    device = list(nic.options(at))[-1]
    assert device.kind == "device"
    common = {"id": at.name, **at.place}
    assert {key: device.properties[key] for key in common} == common
    return {key: value for key, value in device.properties.items() if key not in common}


def card(**given) -> dict:
    """What is left of `made` when the properties of a plain virtio-net are taken away."""
    plain = {"driver": "virtio-net-pci", "netdev": "nic0-net", "mac": MAC, "romfile": ""}
    found = made(Nic(mac=MAC, **given))
    return {key: value for key, value in found.items() if plain.get(key) != value}


def test_a_card_without_more_is_virtio_on_the_user_network():
    assert isinstance(Nic(), Part)
    assert isinstance(Nic(), Adjusted)
    words = argv(Nic(mac=MAC).options(AT))
    assert words == [
        "-netdev",
        '{"type":"user","id":"nic0-net"}',
        "-device",
        '{"driver":"virtio-net-pci","id":"nic0","bus":"pcie.0","addr":"0x5",'
        '"netdev":"nic0-net","mac":"52:54:00:00:00:01","romfile":""}',
    ]


@pytest.mark.parametrize("model", sorted({*MODELS} - {"usb-net", "ne2k_isa", "virtio-net-device"}))
def test_every_pci_model_is_the_device_of_its_name(model):
    driver = "virtio-net-pci" if model == "virtio-net" else model
    expected = {"driver": driver, "netdev": "nic0-net", "mac": MAC, "romfile": ""}
    nic = Nic(model=model, mac=MAC)
    assert made(nic) == expected
    assert (nic.slot.bus, nic.slot.driver, nic.slot.group) == ("pci", driver, "nic")


@pytest.mark.parametrize(("model", "bus"), [("usb-net", "usb"), ("ne2k_isa", "isa")])
def test_other_buses_have_no_boot_rom(model, bus):
    nic = Nic(model=model, mac=MAC)
    assert made(nic) == {"driver": model, "netdev": "nic0-net", "mac": MAC}
    assert nic.slot.bus == bus
    assert nic.slot.unpluggable is (bus != "isa")


def test_on_microvm_virtio_is_mmio():
    at = At("nic0", transport="mmio", vm="vm")
    expected = {"driver": "virtio-net-device", "netdev": "nic0-net", "mac": MAC}
    assert made(Nic(mac=MAC), at) == expected
    assert made(Nic(mac=MAC, queues=1, iommu_platform=True), at) == {
        **expected,
        "iommu_platform": True,
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"bootindex": 0}, {"bootindex": 0}),
        ({"romfile": True}, {}),
        ({"romfile": "efi-virtio.rom"}, {"romfile": "efi-virtio.rom"}),
        ({"packed": True}, {"packed": True}),
        ({"mrg_rxbuf": False}, {"mrg_rxbuf": False}),
        ({"event_idx": False}, {"event_idx": False}),
        ({"indirect_desc": False}, {"indirect_desc": False}),
        ({"rss": True}, {"rss": True}),
        ({"hash": True}, {"hash": True}),
        ({"iommu_platform": True}, {"iommu_platform": True, "disable-legacy": "on"}),
        ({"rx_queue_size": 1024}, {"rx_queue_size": 1024}),
        ({"tx_queue_size": 256}, {"tx_queue_size": 256}),
        ({"mtu": 9000}, {"host_mtu": 9000}),
        ({"speed": 10000, "duplex": "full"}, {"speed": 10000, "duplex": "full"}),
        ({"failover": True}, {"failover": True}),
        ({"failover_pair_id": "nic7"}, {"failover_pair_id": "nic7"}),
        ({"offloads": True}, {}),
        ({"offloads": Offloads(guest_tso4=False)}, {"guest_tso4": False}),
        ({"control": Control(ctrl_vlan=False)}, {"ctrl_vlan": False}),
        ({"properties": {"tx": "bh", "mac": "52:54:00:00:00:02"}},
         {"tx": "bh", "mac": "52:54:00:00:00:02"}),
    ],
)  # fmt: skip
def test_a_field_is_its_property(given, expected):
    found = card(**given)
    if given.get("romfile") is True or "bootindex" in given:
        assert "romfile" not in made(Nic(mac=MAC, **given))
    assert found == expected


def test_queues_bring_their_vectors():
    nic = Nic(Tap(), mac=MAC, queues=4)
    assert made(nic)["mq"] is True
    assert made(nic)["vectors"] == 10
    assert "vectors" not in made(nic, At("nic0", {"bus": "pcie.0", "addr": "0x5"}, "mmio"))


def test_no_offloads_turns_every_bit_off():
    bits = card(offloads=False)
    assert len(bits) == 12
    assert not any(bits.values())
    assert {"csum", "gso", "host_tso4", "guest_csum", "guest_tso6", "guest_ufo"} <= set(bits)


def test_without_its_queue_nothing_is_controlled():
    bits = card(control=Control(ctrl_vq=False))
    assert set(bits) == {
        "ctrl_vq", "ctrl_rx", "ctrl_rx_extra", "ctrl_vlan", "ctrl_mac_addr",
        "ctrl_guest_offloads", "guest_announce",
    }  # fmt: skip
    assert not any(bits.values())


def test_a_card_without_back_end_has_only_a_device():
    (device,) = Nic(None, model="e1000", mac=MAC).options(AT)
    assert "netdev" not in device.properties


def test_a_dump_sits_between_the_back_end_and_the_card():
    netdev, dump, device = Nic(User(), dump=Path("a,b.pcap")).options(AT)
    assert (netdev.kind, device.kind) == ("netdev", "device")
    assert dump.properties == {
        "qom-type": "filter-dump", "id": "nic0-dump", "netdev": "nic0-net", "file": "a,b.pcap",
    }  # fmt: skip
    assert dump.source == "dump"


def test_a_pulled_cable_is_told_when_the_card_exists():
    assert list(Nic().adjustments(AT)) == []
    assert list(Nic(link=False).adjustments(AT)) == [
        Command("set_link", {"name": "nic0", "up": False})
    ]


def test_only_what_another_process_serves_needs_shared_memory():
    assert Nic(VhostUser("/run/vhost")).needs_shared_memory
    assert not Nic().needs_shared_memory
    assert not Nic(None).needs_shared_memory


def test_a_card_knows_the_user_network_behind_it():
    assert Nic().user_netdev("nic3") == "nic3-net"
    assert Nic(Hub(0, User())).user_netdev("nic3") == "nic3-net-uplink"
    assert Nic(Hub(0)).user_netdev("nic3") is None
    assert Nic(Tap()).user_netdev("nic3") is None


REFUSED = [
    ({"model": "e1000", "packed": True}, "packed", "belongs to virtio-net, not e1000"),
    ({"model": "e1000", "mtu": 1400}, "mtu", "belongs to virtio-net, not e1000"),
    ({"model": "vmxnet3", "offloads": False}, "offloads", "belongs to virtio-net, not vmxnet3"),
    ({"model": "e1000e", "failover": True}, "failover", "belongs to virtio-net, not e1000e"),
    ({"model": "rtl8139", "backend": Tap(), "queues": 2}, "queues",
     "must be 1 for rtl8139: virtio-net has more"),
    ({"queues": 2}, "queues", "must be 1 for User, which has one pair"),
    ({"backend": Hub(), "queues": 2}, "queues", "must be 1 for Hub, which has one pair"),
    ({"backend": Stream(Unix("/x")), "queues": 2}, "queues",
     "must be 1 for Stream, which has one pair"),
    ({"queues": 0}, "queues", "must be from 1 to 256"),
    ({"backend": Tap(), "queues": 2, "control": Control(ctrl_vq=False)}, "queues",
     "above 1 need the control queue, which is off"),
    ({"rx_queue_size": 128}, "rx_queue_size", "must be a power of 2 between 256 and 1024"),
    ({"rx_queue_size": 300}, "rx_queue_size", "must be a power of 2 between 256 and 1024"),
    ({"tx_queue_size": 1024}, "tx_queue_size", "above 256 needs VhostUser or VhostVdpa"),
    ({"mtu": 67}, "mtu", "must be from 68 to 65535"),
    ({"duplex": "both"}, "duplex", "must be one of half, full"),
    ({"speed": -1}, "speed", "must be from 0 to 2147483647"),
    ({"model": "e1000", "backend": VhostUser("/x")}, "model", "must be virtio-net for VhostUser"),
    ({"model": "e1000", "backend": Tap(vhost=True)}, "backend.vhost",
     "serves virtio-net, not e1000"),
    ({"rate": "1M"}, "rate",
     "needs a Tap: QEMU itself limits no network card, the kernel limits taps"),
    ({"rate": "1M", "backend": Passt()}, "rate",
     "needs a Tap: QEMU itself limits no network card, the kernel limits taps"),
    ({"rate": "1M", "backend": Tap(fds=[5])}, "rate",
     "needs a Tap that pyvirt opens: no fds, no script"),
    ({"rate": "1M", "backend": Tap(script="no")}, "rate",
     "needs a Tap that pyvirt opens: no fds, no script"),
    ({"rate": "1M", "backend": None}, "rate", "needs a back end"),
    ({"rate": 0}, "receive", "must be positive"),
    ({"dump": "x", "backend": None}, "dump", "needs a back end"),
    ({"dump": "x", "backend": VhostUser("/x")}, "dump",
     "must not be used with vhost, which passes QEMU by"),
    ({"dump": "x", "backend": Tap(vhost=True)}, "dump",
     "must not be used with vhost, which passes QEMU by"),
    ({"backend": Tap(fds=[5, 6])}, "backend.fds", "must be one for each of 1 queues"),
    ({"model": "usb-net", "romfile": ""}, "romfile", "belongs to PCI cards, not usb-net"),
    ({"model": "usb-net", "failover_pair_id": "nic0"}, "failover_pair_id",
     "belongs to PCI cards, not usb-net"),
    ({"failover": True, "failover_pair_id": "nic1"}, "failover_pair_id",
     "must not be set on the standby itself"),
    ({"model": "no spaces"}, "model", "must start with a letter and hold only [A-Za-z0-9_.-]"),
    ({"bootindex": -1}, "bootindex", "must be from 0 to 2147483647"),
    ({"backend": "user"}, "backend", "must be Backend"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "field", "reason"), REFUSED)
def test_what_cannot_be_is_refused_by_name(given, field, reason):
    with pytest.raises(SpecError) as caught:
        Nic(**given)
    assert (caught.value.field, caught.value.reason) == (field, reason)


@pytest.mark.parametrize(
    ("make", "field", "reason"),
    [
        (lambda: Offloads(csum=False, host_tso4=True), "host_tso4", "needs csum, which is off"),
        (lambda: Offloads(guest_csum=False, guest_ufo=True), "guest_ufo",
         "needs guest_csum, which is off"),
        (lambda: Control(ctrl_vq=False, ctrl_rx=True), "ctrl_rx", "needs ctrl_vq, which is off"),
        (lambda: Rate(), "rate", "must limit receive or send"),
        (lambda: Rate(send=1, burst=1500), "burst", "must be at least 131072 bytes"),
    ],
)  # fmt: skip
def test_a_part_of_a_card_is_refused_by_name(make, field, reason):
    with pytest.raises(SpecError) as caught:
        make()
    assert (caught.value.field, caught.value.reason) == (field, reason)


def test_the_families_are_whole():
    assert len(INTEL_8254X) == 4
    assert len(INTEL_8255X) == 13
    assert {"igb", "tulip", "pcnet", "ne2k_pci", "rtl8139", "vmxnet3", "e1000e"} <= set(MODELS)
