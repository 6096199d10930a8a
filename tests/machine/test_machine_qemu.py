"""Machines, processors, memory and firmware as a real QEMU reads them back."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.qemu import Qemu, Refused, needs_qemu, start

from pyvirt.errors import CommandError, SpecError, TimedOut
from pyvirt.machine import (
    CPU,
    DIMM,
    NVDIMM,
    OVMF,
    RTC,
    BiosInfo,
    Board,
    Cache,
    Chassis,
    IOThread,
    Locality,
    Machine,
    Memory,
    MemoryModule,
    NumaNode,
    Processor,
    QBoot,
    SeaBIOS,
    Smbios,
    System,
    VirtioMem,
    VirtioPmem,
    flows,
)
from pyvirt.qemu.part import At
from pyvirt.qemu.render import commands
from pyvirt.qmp.flow import Command, Event, Until

pytestmark = needs_qemu

M = 1 << 20


def options(*described: Any) -> Iterator[Any]:
    for one in described:
        yield from one.options()


def launch(*described: Any, **more: Any) -> Qemu:
    return start(options(*described), machine=None, **more)


def run(flow: Any, qemu: Qemu) -> Any:
    """Step a flow of commands on a real QEMU."""
    try:
        step = next(flow)
        while True:
            assert isinstance(step, Command)
            try:
                result = qemu.cmd(step.name, step.arguments)
            except Refused as error:
                step = flow.throw(CommandError(error.command, error.kind, error.desc))
            else:
                step = flow.send(result)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("type", ["pc", "q35", "microvm", "none", "pc-i440fx-5.2", "pc-q35-6.0"])
def test_every_machine_starts(type):
    with launch(Machine(type), CPU(), Memory("64M")) as qemu:
        assert qemu.get("/machine", "type").removesuffix("-machine").startswith(
            {"pc": "pc-i440fx", "q35": "pc-q35"}.get(type, type)
        )


def test_switches_are_read_back():
    machine = Machine(
        acpi=False,
        smm=False,
        vmport=False,
        hpet=False,
        usb=True,
        i8042=False,
        graphics=False,
        nvdimm=True,
        hmat=True,
        kernel_irqchip="off",
        max_ram_below_4g="1G",
        properties={"nvdimm-persistence": "cpu"},
    )
    with launch(machine) as qemu:
        wanted = {
            "acpi": "off", "smm": "off", "vmport": "off", "hpet": False, "usb": True,
            "i8042": False, "graphics": False, "nvdimm": True, "hmat": True,
            "max-ram-below-4g": 1 << 30, "nvdimm-persistence": "cpu",
        }  # fmt: skip
        assert {name: qemu.get("/machine", name) for name in wanted} == wanted


def test_the_clock_starts_where_it_was_told():
    with launch(Machine(rtc=RTC(datetime(2031, 2, 3, 4, 5, 6), clock="vm"))) as qemu:
        time = qemu.get("/machine", "rtc-time")
    found = [time[f"tm_{part}"] for part in ("year", "mon", "mday", "hour", "min")]
    assert found == [131, 1, 3, 4, 5]


def test_processors_are_arranged_and_flagged_as_described():
    cpu = CPU(
        4,
        "qemu64",
        flags=["+avx2", "-sse3"],
        properties={"hv-time": True, "phys-bits": 40},
        sockets=2,
        dies=1,
        cores=2,
        threads=2,
        maximum=8,
    )
    with launch(Machine(), cpu) as qemu:
        there = qemu.cmd("query-cpus-fast")
        slots = qemu.cmd("query-hotpluggable-cpus")
        path = there[0]["qom-path"]
        assert qemu.get(path, "avx2") is True
        assert qemu.get(path, "sse3") is False
        assert qemu.get(path, "hv-time") is True
        assert qemu.get(path, "phys-bits") == 40
    places = {tuple(slot["props"][f"{level}-id"] for level in ("socket", "core", "thread"))
              for slot in slots}  # fmt: skip
    assert len(there) == 4
    assert places == {(s, c, t) for s in range(2) for c in range(2) for t in range(2)}
    assert flows.present_cpus(slots) == 4


def test_io_threads_are_there_with_their_numbers():
    thread = IOThread("io0", poll_max_ns=5, poll_grow=2, poll_shrink=3, aio_max_batch=4)
    with launch(Machine(), thread) as qemu:
        (found,) = qemu.cmd("query-iothreads")
    assert found["id"] == "io0"
    assert [found[f"poll-{name}"] for name in ("max-ns", "grow", "shrink")] == [5, 2, 3]
    assert found["aio-max-batch"] == 4


@pytest.mark.parametrize("backend", ["memfd", "anonymous", "file"])
def test_memory_is_kept_as_described(backend, tmp_path):
    path = tmp_path / "ram, with 'quotes' é" if backend == "file" else None
    memory = Memory(
        "64M",
        backend=backend,
        path=path,
        slots=3,
        maximum="1G",
        prealloc=True,
        merge=False,
        dump=False,
        host_nodes=[0],
        policy="bind",
    )
    with launch(Machine(), memory) as qemu:
        assert qemu.cmd("query-memory-size-summary")["base-memory"] == 64 * M
        assert qemu.get("/machine", "memory-backend") == "/objects/ram0"
        (found,) = qemu.cmd("query-memdev")
        size = qemu.get("/machine", "memory")
        assert path is None or path.stat().st_size == 64 * M
    assert found["size"] == 64 * M
    assert found["share"] is memory.shared
    assert (found["prealloc"], found["merge"], found["dump"]) == (True, False, False)
    assert (found["policy"], found["host-nodes"]) == ("bind", [0])
    assert (size["slots"], size["max-size"]) == (3, 1 << 30)


def test_numa_nodes_hold_their_processors_memory_and_distances():
    memory = Memory(
        nodes=[
            NumaNode("64M", cpus=[0, 3], distances={1: 20, 2: 30}, initiator=0),
            NumaNode("32M", cpus=[1, 2], distances={2: 40}, initiator=1),
            NumaNode(initiator=1),
        ],
        hmat=[
            *(Locality(a, b, latency=5 + a + b) for a in range(2) for b in range(3)),
            *(Locality(a, b, bandwidth="1G") for a in range(2) for b in range(3)),
            Cache(0, "10K", associativity="direct", policy="write-back"),
        ],
    )
    with launch(Machine(hmat=True), CPU(4), memory) as qemu:
        text = qemu.hmp("info numa")
        nodes = {cpu["cpu-index"]: cpu["props"]["node-id"] for cpu in qemu.cmd("query-cpus-fast")}
        sizes = {found["id"]: found["size"] for found in qemu.cmd("query-memdev")}
    assert nodes == {0: 0, 3: 0, 1: 1, 2: 1}
    assert sizes == {"ram0": 64 * M, "ram1": 32 * M}
    assert "3 nodes" in text
    assert re.search(r"node 0 size: 64 MB", text)


def test_distances_that_differ_by_direction_are_taken_when_all_are_given():
    memory = Memory(
        nodes=[NumaNode("32M", cpus=[0], distances={1: 20}), NumaNode("32M", distances={0: 30})]
    )
    with launch(Machine(), CPU(), memory) as qemu:
        assert "2 nodes" in qemu.hmp("info numa")


def test_memory_plugged_later_is_the_same_as_memory_there_from_the_start(tmp_path):
    described = [
        ("dimm0", DIMM("32M", number=2, backend="anonymous")),
        ("nv0", NVDIMM(tmp_path / "nv, 0", "32M", label_size="128K")),
    ]
    board = [Machine(nvdimm=True), CPU(), Memory("64M", slots=4, maximum="1G")]

    def seen(qemu: Qemu) -> Any:
        found = qemu.cmd("query-memory-devices")
        for entry in found:
            entry["data"].pop("hotplugged")
        memdevs = sorted(qemu.cmd("query-memdev"), key=lambda m: m["id"])
        return sorted(found, key=lambda entry: entry["data"]["id"]), memdevs

    cold = [item for name, part in described for item in part.options(At(name))]
    with start([*options(*board), *cold], machine=None) as qemu:
        from_the_start = seen(qemu)
    with launch(*board) as qemu:
        for name, part in described:
            for command in commands(part.options(At(name)), {}):
                qemu.cmd(command.name, command.arguments)
        later = seen(qemu)
    assert later == from_the_start
    (dimm, nvdimm) = later[0]
    assert (dimm["type"], dimm["data"]["slot"], dimm["data"]["size"]) == ("dimm", 2, 32 * M)
    assert nvdimm["type"] == "nvdimm"


def test_virtio_memory_devices_are_read_back(tmp_path):
    parts = [
        ("vmem0", VirtioMem("64M", requested="16M", block_size="4M")),
        ("pmem0", VirtioPmem(tmp_path / "pm", "32M")),
    ]
    given = [item for name, part in parts for item in part.options(At(name))]
    board = options(Machine(), Memory("64M", maximum="1G"))
    with start([*board, *given], machine=None) as qemu:
        found = {e["data"]["id"]: e["data"] for e in qemu.cmd("query-memory-devices")}
        assert run(flows.resize_virtio_mem("vmem0", 0), qemu) == 0
        assert qemu.get("vmem0", "requested-size") == 0
    assert found["vmem0"]["requested-size"] == 16 * M
    assert found["vmem0"]["max-size"] == 64 * M
    assert found["vmem0"]["block-size"] == 4 * M
    assert found["pmem0"]["size"] == 32 * M


def test_processors_are_plugged_one_after_another_up_to_the_maximum():
    with launch(Machine(), CPU(1, sockets=1, cores=2, threads=2, maximum=4)) as qemu:
        assert run(flows.plug_cpus(2), qemu) == ["cpu-0-0-1", "cpu-0-1-0"]
        assert flows.present_cpus(qemu.cmd("query-hotpluggable-cpus")) == 3
        with pytest.raises(SpecError) as caught:
            run(flows.plug_cpus(2), qemu)
        assert str(caught.value) == "count must be at most 1, the vCPUs not yet plugged, got 2"
        assert run(flows.plug_cpus(1), qemu) == ["cpu-0-1-1"]
        assert len(qemu.cmd("query-cpus-fast")) == 4


def test_a_cpu_that_is_refused_takes_those_before_it_along():
    slots = [
        {"type": "t", "props": {"socket-id": n, "core-id": 0, "thread-id": 0}} for n in (1, 0)
    ]
    flow = flows.plug_cpus(2)
    assert next(flow) == Command("query-hotpluggable-cpus")
    first = flow.send(slots)
    assert (first.name, first.arguments["id"]) == ("device_add", "cpu-0-0-0")
    assert flow.send({}).arguments["socket-id"] == 1
    undo = flow.throw(CommandError("device_add", "GenericError", "no"))
    assert undo == Command("device_del", {"id": "cpu-0-0-0"})
    with pytest.raises(CommandError):
        flow.send({})


def test_resizing_virtio_mem_waits_for_the_guest_and_says_how_far_it_came():
    flow = flows.resize_virtio_mem("vmem0", 64 * M, timeout=5)
    path = {"path": "/machine/peripheral/vmem0"}
    wanted = {**path, "property": "requested-size", "value": 64 * M}
    assert next(flow) == Command("qom-set", wanted)
    ask = Command("qom-get", {**path, "property": "size"})
    assert flow.send({}) == ask
    until = flow.send(0)
    assert isinstance(until, Until)
    assert until.wants(Event("MEMORY_DEVICE_SIZE_CHANGE", {"id": "vmem0", "size": 2 * M}, 0.0))
    assert flow.send(None) == ask
    assert flow.send(32 * M) == until
    with pytest.raises(TimedOut) as caught:
        flow.throw(TimedOut("MEMORY_DEVICE_SIZE_CHANGE", 5))
    assert str(caught.value) == (
        "resizing vmem0 to 67108864 bytes took longer than 5 s: the guest holds 33554432"
    )


@pytest.mark.parametrize("secure", [False, True])
def test_uefi_sits_in_flash_and_only_smm_writes_it_when_secure(secure, tmp_path):
    code = Path("/usr/share/OVMF", "OVMF_CODE_4M.secboot.fd" if secure else "OVMF_CODE_4M.fd")
    template = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
    if not (code.exists() and template.exists()):
        pytest.skip("the package ovmf is not installed")
    store = tmp_path / "vars, mine.fd"
    store.write_bytes(template.read_bytes())
    described = OVMF(secure_boot=secure, code=code, template=template)
    supplied = {"firmware": str(store)}
    with launch(Machine(), CPU(), Memory("128M"), described, supplied=supplied) as qemu:
        assert qemu.get("/machine", "smm") == ("on" if secure else "auto")
        for number, readonly in enumerate((True, False)):
            flash = f"/machine/system.flash{number}"
            assert qemu.get(flash, "secure") is secure
            node = qemu.get(flash, "drive")
            (found,) = (n for n in qemu.cmd("query-named-block-nodes") if n["node-name"] == node)
            assert found["ro"] is readonly
            assert Path(found["file"]) == (store if number else code)


@pytest.mark.parametrize(
    ("firmware", "size"), [(SeaBIOS(), 256), (QBoot(), 64)], ids=["seabios", "qboot"]
)
def test_other_firmware_is_what_the_machine_runs(firmware, size):
    with launch(Machine("microvm"), firmware) as qemu:
        assert qemu.get("/machine", "firmware") == next(firmware.options()).properties
        assert f"size=0x{size * 1024:06x} mem=ram" in qemu.hmp("info roms")


def test_name_plates_reach_the_guest(tmp_path):
    plates = Smbios(
        bios=BiosInfo(vendor="BIOS, by é", version="b-version"),
        system=System(manufacturer="sys-maker", product='a "product"', serial="s,=x", sku="sku-1"),
        board=Board(manufacturer="board-maker", asset="board-asset"),
        chassis=Chassis(serial="chassis-serial"),
        processor=Processor(version="cpu-version", max_speed=1234),
        strings=["first string", "second, with comma"],
        memory=MemoryModule(loc_pfx="SLOT", part="dimm-part", speed=2667),
    )
    memory = tmp_path / "f-segment"
    with launch(Machine("pc"), CPU(), Memory("64M"), plates, stopped=False) as qemu:
        wanted = [
            "BIOS, by é", "b-version", "sys-maker", 'a "product"', "s,=x", "sku-1", "board-maker",
            "board-asset", "chassis-serial", "cpu-version", "first string", "second, with comma",
            "SLOT 0", "dimm-part",
        ]  # fmt: skip
        # SeaBIOS copies the tables to memory below 1 MiB while it starts.
        for _ in range(1000):
            time.sleep(0.03)
            qemu.cmd("pmemsave", val=0, size=M, filename=str(memory))
            found = memory.read_bytes()
            if all(text.encode() in found for text in wanted):
                break
    assert [text for text in wanted if text.encode() not in found] == []


def test_two_cpus_may_be_pinned_and_the_host_agrees():
    """The fields are data; that they can be acted on is what this shows."""
    cpu = CPU(2, pins={0: 0, 1: [0]})
    with launch(Machine(), cpu) as qemu:
        for entry in qemu.cmd("query-cpus-fast"):
            os.sched_setaffinity(entry["thread-id"], cpu.pins[entry["cpu-index"]])
            assert os.sched_getaffinity(entry["thread-id"]) == {0}


def test_descriptors_of_the_host_are_understood():
    from pyvirt.machine.firmware import UefiFiles, descriptor, find

    folder = Path("/usr/share/qemu/firmware")
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    found = [one for one in map(descriptor, documents) if one is not None]
    if not found:
        pytest.skip("no UEFI for x86 is installed")
    plain = find(found, UefiFiles("f", "q35"))
    assert "secure-boot" not in plain.features
    assert plain.code.exists()
    secure = find(found, UefiFiles("f", "pc-q35-7.2", secure_boot=True))
    assert {"secure-boot", "requires-smm"} <= secure.features
    assert "enrolled-keys" not in secure.features
    enrolled = find(found, UefiFiles("f", "q35", secure_boot=True, enrolled=True))
    assert "enrolled-keys" in enrolled.features
