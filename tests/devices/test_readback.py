"""Every described device is started for real, and QEMU says of it what the description says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from cases import PARTS, lines, part
from support.parts import Lab, running
from support.qemu import Refused, needs_qemu, start

from pyvirt.device import check_properties
from pyvirt.devices import (
    Audio,
    Balloon,
    Captured,
    Null,
    Pvpanic,
    Qxl,
    Rng,
    Seed,
    Serial,
    Spice,
    SpiceChannel,
    StdVga,
    Tcp,
    Tpm,
    UsbAudio,
    UsbTablet,
    VirtioGpu,
    VirtioKeyboard,
    VirtioSerialPort,
    VirtioSound,
    Vnc,
)
from pyvirt.errors import UnsupportedError
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At
from pyvirt.qemu.render import resolve
from pyvirt.running.host.probe import probe

pytestmark = needs_qemu

#: What this kind of machine, host or QEMU lacks; QEMU is asked about the properties instead.
ABSENT = re.compile(
    r"VfioPci|Vsock|UsbHost|HostTpm|VirtioInputHost|VirtioSound|gl=True|blob=True|\"pa\""
    r"|certificates|IvshmemDoorbell|VirtioFs|state="
)
DISPLAYS = re.compile(r"Vnc|Spice|Display")
#: A machine has one of each.
ALONE = re.compile(r"Tpm|Balloon|Vmgenid|Pvpanic|Ramfb")

#: Objects that the cases name.
OBJECTS = (
    *("-audiodev", "none,id=speaker"),
    *("-object", "iothread,id=io0"),
    *("-object", "memory-backend-memfd,id=shared0,size=1M,share=on"),
)

#: QEMU wants it to be the first screen, which another is in the big batch.
FIRST_SCREEN = "Qxl()"

CASES = [line for line in lines(PARTS) if not DISPLAYS.match(line)]


def batches() -> list[list[str]]:
    """The cases that can start, in as few machines as will do."""
    found: list[list[str]] = [[]]
    for line in CASES:
        if ABSENT.search(line) or line == FIRST_SCREEN:
            continue
        single = ALONE.match(line)
        number = 0
        while single and any(other.startswith(single[0]) for other in found[number]):
            number += 1
            if number == len(found):
                found.append([])
        found[number].append(line)
    return [*found, [FIRST_SCREEN]]


@pytest.mark.parametrize("batch", batches(), ids=lambda batch: f"{len(batch)}-parts")
def test_qemu_says_what_was_described(batch, tmp_path):
    parts = [part(line, tmp_path) for line in batch]
    with running(*parts, words=OBJECTS) as lab:
        assert len(lab.composition.placed) == len(parts)
        agree(lab)
        complaints = [line for line in lab.qemu.stderr().splitlines() if "swtpm" not in line]
        assert [line for line in complaints if line.startswith("qemu")] == []


MICROVM = [
    Serial(),
    Rng(),
    Balloon(deflate_on_oom=True),
    VirtioGpu(vga=False, xres=640, yres=480),
    VirtioKeyboard(),
    VirtioSerialPort("org.example", Null()),
    Seed({"users": []}),
]


def test_a_microvm_takes_the_virtio_devices():
    with running(*MICROVM, machine="microvm") as lab:
        agree(lab)
        drivers = [lab.qemu.get(name, "type") for name in ("rng0", "balloon0", "video0")]
        assert drivers == ["virtio-rng-device", "virtio-balloon-device", "virtio-gpu-device"]


def test_a_pc_takes_the_devices():
    with running(StdVga(), Serial(), UsbTablet(), Tpm(), Pvpanic(), machine="pc") as lab:
        agree(lab)
        slots = {device["slot"] for device in lab.qemu.cmd("query-pci")[0]["devices"]}
        assert int(str(lab.composition.placed["video0"].at.place["addr"]), 16) in slots


def agree(lab: Lab) -> None:
    """Compare every property of every device and object with what QEMU has."""
    chardevs = {item["label"] for item in lab.qemu.cmd("query-chardev")}
    nodes = {item["node-name"] for item in lab.qemu.cmd("query-named-block-nodes")}
    tpms = {item["id"] for item in lab.qemu.cmd("query-tpm")}
    seen = {"chardev": chardevs, "blockdev": nodes, "tpmdev": tpms}
    for placed in lab.composition.placed.values():
        for option in (*placed.ports, *placed.options):
            if option.kind in {"device", "object"}:
                compare(lab, option)
            elif option.kind in seen:
                assert option.id in seen[option.kind]


def compare(lab: Lab, option: Option) -> None:
    properties = resolve(option.properties, lab.supplied)
    root = "/objects/" if option.kind == "object" else "/machine/peripheral/"
    where = root + option.id
    kind = properties.pop("driver", None) or properties.pop("qom-type")
    assert lab.qemu.get(where, "type") == kind
    del properties["id"]
    for name, value in properties.items():
        assert same(lab, where, name, value), f"{option.id}.{name}: {value!r}"


def same(lab: Lab, where: str, name: str, value: Any) -> bool:
    if name == "bus":
        return str(lab.qemu.get(where, "parent_bus")).endswith(f"/{value}")
    if name == "addr":
        slot, _, function = str(value).partition(".")
        return int(lab.qemu.get(where, name)) == int(slot, 16) * 8 + int(function or "0", 16)
    if name in ("rng", "memdev", "iothread"):
        return str(lab.qemu.get(where, name)) == f"/objects/{value}"
    if (name, value) == ("guid", "auto"):
        return len(lab.qemu.get(where, name)) == 36
    if name == "drive" and lab.qemu.get(where, "type") == "usb-storage":
        return bool(lab.qemu.hmp("info block").count(f"{where}/")) or value in nodes_in_use(lab)
    return bool(lab.qemu.get(where, name) == value)


def nodes_in_use(lab: Lab) -> set[str]:
    """The block nodes that devices use (usb-storage gives its own to a SCSI disk)."""
    return {item["inserted"]["node-name"] for item in lab.qemu.cmd("query-block")}


@pytest.fixture(scope="module")
def properties():
    """What this QEMU says of a device's properties, by its name."""
    with start() as qemu:

        def ask(driver: str) -> Mapping[str, Any]:
            # QEMU 7.2 ends when it is asked about a "gl" device without OpenGL.
            listed = qemu.cmd("device-list-properties", typename=driver.replace("-gl", ""))
            more = ("type", "description")
            return {p["name"]: SimpleNamespace(**{k: p.get(k) for k in more}) for p in listed}

        yield ask


@pytest.mark.parametrize("line", [line for line in CASES if ABSENT.search(line)])
def test_qemu_knows_the_properties_of_what_cannot_start_here(line, properties):
    devices = [o for o in options(line) if o.kind == "device"]
    for option in devices:
        given = {**option.properties}
        try:
            known = properties(given.pop("driver"))
        except Refused:
            assert line.startswith("VirtioSound")
            continue
        check_properties(given, known)
    assert devices


def options(line: str) -> list[Option]:
    found = part(line)
    items = found.options(At(f"{found.prefix}0"))
    return [item for item in items if isinstance(item, Option)]


def test_the_absent_and_the_started_are_all():
    started = [line for batch in batches() for line in batch]
    assert sorted([*started, *(line for line in CASES if ABSENT.search(line))]) == sorted(CASES)


def test_screens_are_served():
    parts = [Vnc(), Vnc(password="geheim", share="force-shared"), Vnc(host="::1", display=7, to=99)]
    with running(StdVga(), *parts) as lab:
        servers = {server["id"]: server for server in lab.qemu.cmd("query-vnc-servers")}
        assert [servers[f"vnc{n}"]["auth"] for n in range(3)] == ["none", "vnc", "none"]
        local = servers["vnc0"]["server"][0]
        assert (local["family"], local["service"]) == ("unix", str(lab.path("vnc0-socket")))
        assert servers["vnc2"]["server"][0]["family"] == "ipv6"


def test_screens_are_served_over_spice():
    with running(Qxl(), Spice(password="geheim"), Serial(SpiceChannel("vdagent"))) as lab:
        spice = lab.qemu.cmd("query-spice")
        assert (spice["enabled"], spice["auth"]) == (True, "spice")
        lab.qemu.cmd("set_password", protocol="spice", password="other")
    with running(Qxl(), Spice(image_compression="quic", agent_mouse=False)) as lab:
        assert lab.qemu.cmd("query-spice")["auth"] == "none"
        assert lab.path("spice0-socket").is_socket()


def test_screens_and_ports_are_encrypted():
    tls = ("-object", "tls-creds-anon,id=tls0,endpoint=server")
    parts = [Vnc(display=8, to=99, tls_creds="tls0"), Serial(Tcp(0, server=True, tls_creds="tls0"))]
    with running(*parts, words=tls) as lab:
        (server,) = lab.qemu.cmd("query-vnc-servers")
        assert server["auth"] == "vencrypt"
        found = {c["label"]: c["filename"] for c in lab.qemu.cmd("query-chardev")}
        assert found["serial0-chardev"].startswith("disconnected:tcp:127.0.0.1:")


def test_what_this_qemu_lacks_is_told_before_a_start():
    lacking = [VirtioSound(), VirtioGpu(gl=True), UsbAudio(audio=Audio("pa"))]
    capabilities = probe("qemu-system-x86_64")
    hints = []
    for item in lacking:
        items = item.options(At("x0"))
        with pytest.raises(UnsupportedError) as caught:
            capabilities.check([option for option in items if isinstance(option, Option)])
        hints.append((caught.value.what, caught.value.hint))
    if capabilities.version < (8, 2, 0):
        assert hints[0][1] == "there is ich9-intel-hda with hda-duplex"
    assert hints[2] == ("audiodev pa", "")


def test_a_captured_port_is_a_pipe_and_has_a_log():
    with running(Serial(Captured())) as lab:
        found = next(c for c in lab.qemu.cmd("query-chardev") if c["label"] == "serial0-chardev")
        assert (found["filename"], found["frontend-open"]) == ("pipe", True)
        assert lab.path("serial0-log").read_bytes() == b""
