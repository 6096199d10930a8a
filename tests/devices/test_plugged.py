"""What is plugged into a running QEMU is the same as what was there from the start."""

from __future__ import annotations

import re
from typing import Any

import pytest
from cases import BACKENDS, PARTS, lines, part, value
from support.parts import Lab, running
from support.qemu import Refused, needs_qemu, start
from test_readback import ABSENT, OBJECTS

from pyvirt.devices import StdVga, VirtioSerial, Watchdog, Xhci
from pyvirt.machine.machine import Machine
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At
from pyvirt.qemu.render import QMP_COMMANDS, argv, commands

pytestmark = needs_qemu

BOARD = Machine("q35", hotplug_ports=16, hotplug_bridge=True)
THERE = (StdVga(), Xhci(), VirtioSerial())

#: Where a device is and how it came there, and what it chooses itself.
OWN = {"addr", "legacy-addr", "hotplugged", "port", "nr", "guid", "loaded", "ioeventfd"}
#: Several would be one too many.
TWICE = re.compile(r"Balloon\(.+|Watchdog\(.+|Xhci\(\)|VirtioSerial\(\)")


def pluggable(line: str) -> bool:
    """Whether it can start here, its slot can be plugged, and QEMU has commands for it all."""
    found = part(line)
    if ABSENT.search(line) or TWICE.fullmatch(line) or not found.slot.unpluggable:
        return False
    items = found.options(At("x"))
    kinds = {item.kind for item in items if isinstance(item, Option)}
    return kinds <= set(QMP_COMMANDS) and found.slot.bus not in {"", "isa", "ide", "sata"}


# Pinned places first, as at a start, so that nobody sits there by chance.
LINES = sorted(filter(pluggable, lines(PARTS)), key=lambda line: not part(line).slot.address)


def state(lab: Lab, name: str) -> dict[str, Any]:
    """Every property of a device that has a value."""
    where = f"/machine/peripheral/{name}"
    found = {}
    for item in lab.qemu.cmd("qom-list", path=where):
        simple = not item["type"].startswith(("child<", "link<"))
        if simple and item["name"] not in OWN:
            try:
                found[item["name"]] = lab.qemu.get(where, item["name"])
            except Refused:
                found[item["name"]] = "unreadable"
    return found


def test_plugged_devices_equal_those_from_the_start(tmp_path):
    parts = [part(line, tmp_path) for line in LINES]
    with running(*THERE, *parts, machine=BOARD, words=OBJECTS) as cold:
        names = cold.composition.placed.keys() - {"video0", "xhci0", "virtio-serial0"}
        before = {name: state(cold, name) for name in names}
    with running(*THERE, machine=BOARD, words=OBJECTS) as hot:
        plugged = [hot.plug(part(line, tmp_path)) for line in LINES]
        assert {name: state(hot, name) for name in plugged} == before
    assert len(LINES) > 30


def test_an_action_can_come_later():
    with running(machine=BOARD) as lab:
        lab.plug(Watchdog("pause"))
        assert lab.qemu.get("watchdog0", "type") == "i6300esb"


#: Backends of things that are not here, or (a multiplexer, the terminal) only of a start.
NOT_HERE = re.compile(r"Piped|Pipe|HostSerial|HostParallel|peer|tls|Spice|Stdio|mux|Captured")


@pytest.mark.parametrize("line", [line for line in lines(BACKENDS) if not NOT_HERE.search(line)])
def test_a_chardev_added_later_equals_one_from_the_start(line, qemu, tmp_path):
    found = value(line.replace("/tmp/", f"{tmp_path}/"))
    options = [item for item in found.options("late") if isinstance(item, Option)]
    for command in commands(options, {}):
        qemu.cmd(command.name, command.arguments)
    late = filename(qemu)
    qemu.cmd("chardev-remove", id="late-chardev")
    with start(options) as cold:
        assert plain(filename(cold)) == plain(late)
        assert argv(options)[0] == "-chardev"


@pytest.fixture(scope="module")
def qemu():
    with start() as qemu:
        yield qemu


def filename(qemu: Any) -> str:
    found = {item["label"]: item["filename"] for item in qemu.cmd("query-chardev")}
    return str(found["late-chardev"])


def plain(filename: str) -> str:
    """Without the numbers that the kernel chooses."""
    return re.sub(r"(?<=[:/])\d+(?=,|$|<)", "N", filename)
