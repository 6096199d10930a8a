"""Places: nobody shares one, nobody moves without need, and QEMU agrees with every one."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from support.qemu import Qemu, Refused, needs_qemu, start

from pyvirt.errors import SpecError
from pyvirt.qemu import buses, pci
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot
from pyvirt.qemu.topology import Topology, rank


@frozen(kw_only=True)
class Board:
    """What the topology asks of a machine."""

    family: str = "q35"
    hotplug_ports: int = 0
    hotplug_bridge: bool = False
    pcie: bool = False
    transports: int = 24


BOARDS = {
    "pc": Board(family="pc"),
    "q35": Board(hotplug_ports=4, hotplug_bridge=True),
    "microvm": Board(family="microvm"),
}

NIC = Slot("pci", group="nic", driver="virtio-net-pci")
E1000 = Slot("pci", group="nic", driver="e1000")
DISK = Slot("pci", group="disk", driver="virtio-blk-pci")
SCSI = Slot("scsi", group="disk")


class Layout:
    """Parts placed one after another, with all options that this takes."""

    def __init__(self, board: Board) -> None:
        self.topology = Topology(board)
        self.options: list[Option] = list(self.topology.spares())
        self.at: dict[str, At] = {}

    def add(self, name: str, slot: Slot, *, plugged: bool = False, **properties: Any) -> At:
        made, at = self.topology.place(name, slot, plugged=plugged)
        self.options += made
        self.at[name] = at
        if slot.driver:
            device = {"driver": slot.driver, "id": name, **at.place, **properties}
            self.options.append(Option("device", device))
        return at


def lay_out(board: str, *slots: tuple[str, Slot]) -> Layout:
    layout = Layout(BOARDS[board])
    for name, slot in slots:
        layout.add(name, slot)
    return layout


def places(layout: Layout) -> dict[str, dict[str, Any]]:
    return {name: dict(at.place) for name, at in layout.at.items()}


# What QEMU says

@needs_qemu
def test_conventional_devices_are_those_qemu_calls_so():
    with start() as qemu:
        def names(interface: str) -> set[str]:
            types = qemu.cmd("qom-list-types", implements=interface, abstract=False)
            return {entry["name"] for entry in types}

        express = names("pci-express-device")
        plain = names("conventional-pci-device") - express
    builtin = {"ICH9-LPC", "ICH9-SMB", "PIIX3", "PIIX3-xen", "PIIX4_PM"}
    builtin |= {"gpex-root", "i440FX", "mch"}
    assert {name for name in plain - builtin if not pci.conventional(name)} == set()
    assert {name for name in express if pci.conventional(name)} == set()


@needs_qemu
@pytest.mark.parametrize("board", ["pc", "q35"])
@pytest.mark.parametrize("driver", ["virtio-net-pci", "e1000"])
def test_32_cards_and_40_disks_fit_and_sit_where_we_said(board, driver):
    layout = Layout(BOARDS[board])
    for number in range(32):
        layout.add(f"nic{number}", Slot("pci", group="nic", driver=driver))
    for number in range(40):
        node = {"driver": "null-co", "node-name": f"node{number}"}
        layout.options.append(Option("blockdev", node))
        layout.add(f"disk{number}", DISK, drive=f"node{number}")
    with start(layout.options, machine=board, stopped=False) as qemu:
        found = {name: qemu.get(name, "legacy-addr") for name in layout.at}
        parents = {name: qemu.get(name, "parent_bus").rsplit("/", 1)[-1] for name in layout.at}
        devices = eventually_all(qemu, 72)
    for name, at in layout.at.items():
        slot, function = pci.parse_address(at.place["addr"])
        assert found[name] == f"{slot:02x}.{function}", name
        assert parents[name] == at.place["bus"], name
        assert devices[name]["slot"] == slot
    assert len(devices.keys() & layout.at.keys()) == 72


def eventually_all(qemu: Qemu, count: int) -> dict[str, dict[str, Any]]:
    """The devices of ``query-pci`` once SeaBIOS has numbered the buses behind bridges."""
    for _ in range(1000):
        devices = flat(qemu.cmd("query-pci"))
        if sum(name.startswith(("nic", "disk")) for name in devices) == count:
            return devices
        time.sleep(0.03)
    raise AssertionError(f"only {sorted(devices)} are there")


def flat(buses_: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every device of ``query-pci`` by its id, those behind bridges too."""
    found: dict[str, dict[str, Any]] = {}

    def walk(devices: list[dict[str, Any]]) -> None:
        for device in devices:
            found[device["qdev_id"]] = device
            walk(device.get("pci_bridge", {}).get("devices", []))

    for bus in buses_:
        walk(bus["devices"])
    return found


def scsi_disk(controller: str, number: int, *, alone: bool = False) -> tuple[str, Slot]:
    slot = Slot("scsi", controller=controller, alone=alone, group="disk")
    return f"disk{number}", slot


@needs_qemu
@pytest.mark.parametrize(
    "model", [model.model for model in buses.CONTROLLERS.values() if model.bus == "scsi"]
)
def test_every_place_of_every_scsi_controller_is_one(model):
    board = "microvm" if model.endswith("-device") else "q35"
    layout = Layout(BOARDS[board])
    count = buses.CONTROLLERS[model].count + 1
    for number in range(count):
        name, slot = scsi_disk(model, number)
        at = layout.add(name, slot)
        node = {"driver": "null-co", "node-name": f"n{number}"}
        layout.options.append(Option("blockdev", node))
        device = {"driver": "scsi-hd", "id": name, "drive": f"n{number}", **at.place}
        layout.options.append(Option("device", device))
    with start(layout.options, machine=board) as qemu:
        assert len(qemu.cmd("query-block")) == count
        first, last = layout.at["disk0"].place, layout.at[f"disk{count - 1}"].place
        assert first["bus"] != last["bus"]
        assert qemu.get(f"disk{count - 1}", "scsi-id") == last["scsi-id"]


@needs_qemu
@pytest.mark.parametrize(
    ("board", "bus", "driver", "count"),
    [
        ("pc", "ide", "ide-hd", 4),
        ("q35", "ide", "ide-hd", 4),
        ("pc", "sata", "ide-hd", 8),
        ("q35", "sata", "ide-cd", 13),
        ("pc", "floppy", "floppy", 2),
        ("q35", "floppy", "floppy", 2),
        ("pc", "sd", "sd-card", 3),
        ("q35", "sd", "sd-card", 3),
        ("q35", "usb", "usb-storage", 17),
        ("pc", "usb", "usb-storage", 3),
    ],
)
def test_disks_of_a_bus_are_all_taken_by_qemu(board, bus, driver, count):
    layout = Layout(BOARDS[board])
    for number in range(count):
        node = {"driver": "null-co", "node-name": f"n{number}", "size": 1 << 20}
        layout.options.append(Option("blockdev", node))
        at = layout.add(f"disk{number}", Slot(bus, group="disk"))
        device = {"driver": driver, "id": f"disk{number}", "drive": f"n{number}", **at.place}
        layout.options.append(Option("device", device))
    with start(layout.options, machine=board) as qemu:
        assert "usb-hub" not in qemu.hmp("info qtree")
        for number in range(count):
            place = layout.at[f"disk{number}"].place
            bus_name = qemu.get(f"disk{number}", "parent_bus").rsplit("/", 1)[-1]
            assert bus_name == place["bus"].rsplit("/", 1)[-1]
    assert len({tuple(sorted(at.place.items())) for at in layout.at.values()}) == count


@needs_qemu
def test_all_usb_controllers_are_accepted_with_every_port():
    layout = Layout(BOARDS["q35"])
    models = [model for model in buses.CONTROLLERS.values() if model.bus == "usb"]
    for model in models:
        for number in range(model.count):
            name = f"{model.model}-{number}".replace("-", "_")
            at = layout.add(name, Slot("usb", controller=model.model))
            device = {"driver": "usb-tablet", "id": name, **at.place}
            layout.options.append(Option("device", device))
    with start(layout.options) as qemu:
        usb = qemu.hmp("info usb")
    assert usb.count("Product QEMU USB Tablet") == sum(model.count for model in models)


@needs_qemu
def test_serial_ports_fill_the_bus_and_leave_the_first_place_to_a_console():
    layout = Layout(BOARDS["q35"])
    for number in range(31):
        layout.add(f"port{number}", Slot("virtio-serial", driver="virtserialport"))
    layout.add("console0", Slot("virtio-serial", driver="virtconsole"))
    assert layout.at["console0"].place == {"bus": "vserial0.0", "nr": 0}
    assert layout.at["port0"].place == {"bus": "vserial0.0", "nr": 1}
    assert layout.at["port30"].place == {"bus": "vserial1.0", "nr": 1}
    with start(layout.options) as qemu:
        assert qemu.get("port30", "nr") == 1
        assert qemu.get("console0", "nr") == 0


@needs_qemu
def test_microvm_devices_sit_on_the_transports_we_said():
    layout = Layout(BOARDS["microvm"])
    for number in range(12):
        layout.add(f"rng{number}", Slot("pci", driver="virtio-rng-device"))
    with start(layout.options, machine="microvm") as qemu:
        for name, at in layout.at.items():
            assert at.transport == "mmio"
            assert qemu.get(name, "parent_bus").rsplit("/", 1)[-1] == at.place["bus"]


@needs_qemu
@pytest.mark.parametrize("board", ["pc", "q35"])
@pytest.mark.parametrize("driver", ["virtio-rng-pci", "e1000"])
def test_what_is_plugged_later_finds_a_place_that_qemu_takes(board, driver):
    layout = Layout(BOARDS[board])
    layout.add("nic0", E1000)
    with start(layout.options, machine=board, stopped=False) as qemu:
        for number in range(3):
            made, at = layout.topology.place(
                f"late{number}", Slot("pci", driver=driver), plugged=True
            )
            assert made == ()
            qemu.cmd("device_add", driver=driver, id=f"late{number}", **at.place)
            assert qemu.get(f"late{number}", "type") == driver


@needs_qemu
def test_a_scsi_controller_can_come_with_the_disk_that_is_plugged():
    layout = Layout(BOARDS["q35"])
    with start(layout.options) as qemu:
        made, at = layout.topology.place("disk0", SCSI, plugged=True)
        (controller,) = made
        qemu.cmd("device_add", controller.properties)
        qemu.cmd("blockdev-add", {"driver": "null-co", "node-name": "n"})
        qemu.cmd("device_add", {"driver": "scsi-hd", "id": "disk0", "drive": "n", **at.place})
        assert qemu.get("disk0", "scsi-id") == 0


@needs_qemu
def test_qemu_has_no_more_ports_than_we_keep_free():
    layout = Layout(BOARDS["q35"])
    with start(layout.options) as qemu:
        for number in range(4):
            at = layout.add(f"rng{number}", Slot("pci", driver="virtio-rng-pci"), plugged=True)
            qemu.cmd("device_add", driver="virtio-rng-pci", id=f"rng{number}", **at.place)
        with pytest.raises(SpecError, match="hotplug_ports"):
            layout.add("rng4", Slot("pci", driver="virtio-rng-pci"), plugged=True)
        with pytest.raises(Refused, match="hotplug"):
            qemu.cmd("device_add", driver="virtio-rng-pci", id="rng4", bus="pcie.0")


# Rules

def test_a_disk_more_moves_no_card():
    one = lay_out("q35", ("disk0", DISK), ("nic0", NIC))
    two = lay_out("q35", ("disk0", DISK), ("disk1", SCSI), ("disk2", DISK), ("nic0", NIC))
    assert places(one)["nic0"] == places(two)["nic0"]


def test_cards_on_q35_sit_behind_ports_of_their_own_or_behind_a_bridge():
    layout = lay_out("q35", ("nic0", NIC), ("nic1", NIC), ("nic2", E1000))
    assert places(layout) == {
        "nic0": {"bus": "port2.0", "addr": "0x0"},
        "nic1": {"bus": "port2.1", "addr": "0x0"},
        "nic2": {"bus": "bridge1a", "addr": "0x1"},
    }


def test_what_stays_sits_on_the_root_bus():
    layout = lay_out(
        "q35",
        ("vga", Slot("pci", group="video", driver="VGA", unpluggable=False)),
        ("hda", Slot("pci", driver="ich9-intel-hda", unpluggable=False)),
    )
    assert places(layout) == {
        "vga": {"bus": "pcie.0", "addr": "0x1"},
        "hda": {"bus": "pcie.0", "addr": "0x13"},
    }


def test_two_pinned_to_one_place_are_both_named():
    layout = lay_out("pc", ("nic0", Slot("pci", group="nic", address={"addr": "0x5"})))
    with pytest.raises(SpecError) as caught:
        layout.add("nic1", Slot("pci", group="nic", address={"addr": "05.0"}))
    assert str(caught.value).startswith("address of nic1 is held by nic0, got ")
    assert caught.value.field == "address"


def test_a_function_is_shared_only_where_function_0_says_so():
    layout = Layout(BOARDS["pc"])
    layout.add("a", Slot("pci", address={"addr": "5", "multifunction": True}))
    assert layout.add("b", Slot("pci", address={"addr": "5.1"})).place["addr"] == "5.1"
    layout.add("c", Slot("pci", address={"addr": "6"}))
    with pytest.raises(SpecError, match="held by c"):
        layout.add("d", Slot("pci", address={"addr": "6.1"}))


def test_what_is_pinned_on_our_ports_gets_the_port_made():
    layout = Layout(BOARDS["q35"])
    layout.add("nic0", Slot("pci", group="nic", address={"bus": "port2.1", "addr": "0x0"}))
    made = [option.properties["id"] for option in layout.options if "chassis" in option.properties]
    assert made[-2:] == ["port2.0", "port2.1"]
    assert layout.add("nic1", NIC).place["bus"] == "port2.0"


def test_a_slot_pinned_in_a_region_of_ports_keeps_ports_out_of_it():
    layout = Layout(BOARDS["q35"])
    layout.add("mine", Slot("pci", address={"addr": "0x2"}))
    assert layout.add("nic0", NIC).place["bus"] == "port3.0"


def test_a_controller_of_the_user_is_used_before_one_is_made():
    layout = Layout(BOARDS["q35"])
    layout.add("mine", Slot("pci", driver="virtio-scsi-pci"))
    assert layout.add("disk0", SCSI).place["bus"] == "mine.0"
    named = Slot("scsi", controller="mine")
    assert layout.add("disk1", named).place == {"bus": "mine.0", "scsi-id": 1, "lun": 0}
    other = Slot("scsi", controller="lsi53c895a")
    assert layout.add("disk2", other).place == {"bus": "scsi1.0", "scsi-id": 0, "lun": 0}


def test_a_controller_of_the_user_has_the_places_that_its_properties_say():
    layout = Layout(BOARDS["q35"])
    layout.add("mine", Slot("pci", driver="qemu-xhci"))
    for number in range(5):
        layout.add(f"usb{number}", Slot("usb"))
    assert layout.at["usb3"].place == {"bus": "mine.0", "port": "4"}
    assert layout.at["usb4"].place == {"bus": "usb5.0", "port": "1"}
    layout.topology.offer("mine", {"driver": "qemu-xhci", "p2": 2, "p3": 8})
    assert layout.add("usb6", Slot("usb", controller="mine")).place["port"] == "5"


def test_virtio_that_is_made_for_pci_only_takes_no_transport():
    with pytest.raises(SpecError, match="not there on machine microvm"):
        Layout(BOARDS["microvm"]).add("vmem0", Slot("pci", driver="virtio-mem-pci"))


def test_alone_means_alone():
    layout = Layout(BOARDS["q35"])
    layout.add("disk0", Slot("scsi", alone=True))
    layout.add("disk1", SCSI)
    layout.add("disk2", Slot("scsi", alone=True))
    layout.add("disk3", SCSI)
    found = [at.place["bus"] for at in layout.at.values()]
    assert found == ["scsi0.0", "scsi1.0", "scsi2.0", "scsi1.0"]


def test_forty_disks_with_a_controller_each_fit():
    for model in ("virtio-scsi-pci", "lsi53c895a"):
        for board in ("pc", "q35"):
            layout = Layout(BOARDS[board])
            for number in range(40):
                layout.add(*scsi_disk(model, number, alone=True))
            assert len({at.place["bus"] for at in layout.at.values()}) == 40


def test_an_unknown_controller_says_what_there_is():
    with pytest.raises(SpecError) as caught:
        Layout(BOARDS["q35"]).add("disk0", Slot("scsi", controller="lsi53c1010"))
    assert caught.value.field == "controller"
    assert "lsi53c895a" in str(caught.value)


def test_pinned_scsi_places_are_honoured_and_avoided():
    layout = Layout(BOARDS["q35"])
    layout.add("disk0", Slot("scsi", address={"scsi-id": 0, "lun": 1}))
    layout.add("disk1", SCSI)
    layout.add("disk2", Slot("scsi", address={"scsi-id": 1}))
    assert [at.place["scsi-id"] for at in layout.at.values()] == [0, 0, 1]
    with pytest.raises(SpecError, match="disk3 is held by disk2"):
        layout.add("disk3", Slot("scsi", address={"scsi-id": 1}))


@pytest.mark.parametrize("bus", ["ide", "sata", "sd", "floppy", "isa"])
def test_fixed_buses_take_nothing_later(bus):
    with pytest.raises(SpecError) as caught:
        Layout(BOARDS["q35"]).add("late", Slot(bus), plugged=True)
    assert str(caught.value) == f"bus takes nothing while the guest runs, got {bus!r}"


def test_machine_none_has_no_buses():
    with pytest.raises(SpecError, match="not there on machine none"):
        Layout(Board(family="none")).add("nic0", NIC)


def test_microvm_without_pcie_takes_only_virtio():
    with pytest.raises(SpecError, match="not there on machine microvm"):
        Layout(BOARDS["microvm"]).add("nic0", E1000)
    with_pcie = Layout(Board(family="microvm", pcie=True))
    assert with_pcie.add("nic0", E1000).place == {"bus": "pcie.0", "addr": "0x1"}


def test_an_id_is_given_once():
    layout = Layout(BOARDS["q35"])
    layout.add("disk0", SCSI)
    with pytest.raises(SpecError) as caught:
        layout.add("scsi0", NIC)
    assert str(caught.value) == "id is taken by the controller made for disk0, got 'scsi0'"


def test_a_released_place_is_free_again():
    layout = Layout(BOARDS["q35"])
    for name, slot in (("nic0", NIC), ("disk0", SCSI), ("disk1", DISK)):
        layout.add(name, slot)
    before = places(layout)
    for name in before:
        layout.topology.release(name)
    again = {name: dict(layout.topology.place(name, slot)[1].place)
             for name, slot in (("nic0", NIC), ("disk0", SCSI), ("disk1", DISK))}
    assert again == before


def test_a_refused_part_leaves_the_topology_as_it_was():
    topology = Topology(Board(family="pc"))
    for number in range(4):
        topology.place(f"disk{number}", Slot("ide"))
    before = topology.copy()
    with pytest.raises(SpecError, match="all 4"):
        topology.place("disk4", Slot("ide"))
    assert topology == before


def test_a_copy_is_apart():
    topology = Topology(BOARDS["q35"])
    copy = topology.copy()
    copy.place("disk0", SCSI)
    assert topology.copy() == Topology(BOARDS["q35"])
    assert copy != topology


# Properties

SLOTS = st.one_of(
    st.builds(
        Slot,
        st.just("pci"),
        group=st.sampled_from(["nic", "disk", "video", ""]),
        driver=st.sampled_from(["virtio-net-pci", "e1000", "nvme", "VGA", "qemu-xhci", ""]),
        unpluggable=st.booleans(),
    ),
    st.builds(
        Slot,
        st.just("scsi"),
        controller=st.sampled_from(["", "lsi53c895a", "megasas-gen2", "pvscsi"]),
        alone=st.booleans(),
        group=st.just("disk"),
    ),
    st.builds(Slot, st.sampled_from(["sata", "usb", "virtio-serial", "sd"])),
    st.builds(
        Slot,
        st.just("pci"),
        driver=st.just("e1000"),
        address=st.builds(lambda n: {"addr": hex(n)}, st.integers(1, 31)),
    ),
)


def build(board: Board, slots: list[tuple[str, Slot]]) -> Layout:
    layout = Layout(board)
    for name, slot in sorted(slots, key=lambda item: rank(item[1])):
        with suppress(SpecError):
            layout.add(name, slot)
    return layout


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["pc", "q35"]), st.lists(SLOTS, max_size=90))
def test_no_two_share_a_place_or_a_function_by_accident(board, slots):
    layout = build(BOARDS[board], [(f"part{n}", slot) for n, slot in enumerate(slots)])
    devices = [option.properties for option in layout.options if "addr" in option.properties]
    seats = [(d["bus"], *pci.parse_address(d["addr"])) for d in devices]
    assert len(set(seats)) == len(seats)
    for bus, slot, function in seats:
        if function:
            (first,) = (d for d, seat in zip(devices, seats, strict=True) if seat == (bus, slot, 0))
            assert first["multifunction"] is True
    ids = [option.properties["id"] for option in layout.options]
    assert len(set(ids)) == len(ids)
    others = [
        tuple(sorted(at.place.items())) for at in layout.at.values() if "addr" not in at.place
    ]
    assert len(set(others)) == len(others)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["pc", "q35", "microvm"]), st.lists(SLOTS, max_size=60))
def test_buses_exist_before_what_sits_on_them(board, slots):
    layout = build(BOARDS[board], [(f"part{n}", slot) for n, slot in enumerate(slots)])
    there = {"pci.0", "pcie.0"}
    for option in layout.options:
        bus = option.properties.get("bus", "pci.0")
        assert bus in there or bus.startswith("virtio-mmio-bus.")
        there.add(option.properties["id"])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["pc", "q35"]), st.integers(0, 40), st.integers(0, 32), st.randoms())
def test_groups_do_not_move_each_other(board, disks, nics, random):
    cards = [(f"nic{n}", NIC) for n in range(nics)]
    alone = places(build(BOARDS[board], cards))
    mixed: list[tuple[str, Slot]] = list(cards)
    for number in range(disks):
        at = random.randint(0, len(mixed))
        mixed.insert(at, (f"disk{number}", random.choice([DISK, SCSI, Slot("sata"), Slot("usb")])))
    together = places(build(BOARDS[board], mixed))
    assert {name: together[name] for name in alone} == alone
