"""What a QEMU has, learnt from its answers, kept small, and compared with descriptions."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import UnsupportedError
from pyvirt.qemu.capabilities import Answers, Capabilities, learn
from pyvirt.qemu.option import Late, Option
from pyvirt.qmp.schema import Schema

SCHEMA = [
    {"meta-type": "builtin", "name": "str", "json-type": "string"},
    {"meta-type": "object", "name": "0", "members": []},
    {"meta-type": "enum", "name": "drivers", "values": ["raw", "file", "qcow2"], "members": []},
    {"meta-type": "enum", "name": "aio", "values": ["threads", "native"], "members": []},
    {
        "meta-type": "object",
        "name": "file",
        "members": [{"name": "aio", "type": "aio", "default": None}],
    },
    {
        "meta-type": "object",
        "name": "node",
        "tag": "driver",
        "members": [{"name": "driver", "type": "drivers"}],
        "variants": [
            {"case": "raw", "type": "0"},
            {"case": "file", "type": "file"},
            {"case": "qcow2", "type": "0"},
        ],
    },
    {"meta-type": "command", "name": "blockdev-add", "arg-type": "node", "ret-type": "0"},
]

QDM = """Network devices:
name "e1000", bus PCI, alias "e1000-82540em", desc "Intel Gigabit Ethernet"
name "mch", bus PCI, desc "Host bridge", no-user
name "usb-net", bus usb-bus
name "loader", desc "Generic Loader"
"""

PORT = {"name": "mac", "type": "str", "description": "Ethernet 6-byte MAC Address"}
QUEUES = {"name": "queues", "type": "uint16", "default-value": 1}


def answers(**changes: object) -> Answers:
    whole: dict[str, object] = {
        "version": {"qemu": {"major": 8, "minor": 1, "micro": 2}, "package": "Debian"},
        "target": {"arch": "x86_64"},
        "machines": [
            {"name": "pc-q35-8.1", "alias": "q35", "cpu-max": 288, "hotpluggable-cpus": True}
        ],
        "cpus": [{"name": "qemu64", "unavailable-features": ["svm"]}],
        "properties": {"e1000": [PORT, QUEUES], "usb-net": [PORT], "mch": [], "odd": None},
        "express": frozenset({"mch"}),
        "conventional": frozenset({"e1000"}),
        "accelerators": [{"name": "tcg-accel"}, {"name": "accel"}],
        "tpms": ["emulator"],
        "qdm": QDM.replace("\n", "\r\n"),
        "help": {
            "display": "qemu: no module ui-gtk\nAvailable display backend types:\nnone\ndbus\n",
            "audiodev": "Available audio drivers:\nnone\nspice\n",
        },
        "schema": Schema.decode(msgspec.json.encode(SCHEMA)),
    }
    return Answers(**{**whole, **changes})  # type: ignore[arg-type]


QEMU = learn(answers())


def test_it_knows_what_it_was_told():
    assert QEMU.name == "QEMU 8.1.2"
    assert QEMU.machine("q35").name == "pc-q35-8.1"
    assert QEMU.cpus["qemu64"].unavailable == ("svm",)
    assert QEMU.block_drivers == {"raw", "file", "qcow2"}
    assert QEMU.aio == {"threads", "native"}
    assert QEMU.displays == {"none", "dbus"}
    assert QEMU.audiodevs == {"none", "spice"}
    assert QEMU.accelerators == {"tcg"}


def test_a_device_knows_its_bus_and_properties():
    card = QEMU.device("e1000")
    assert (card.bus, card.express, card.user_creatable) == ("PCI", False, True)
    assert card.description == "Intel Gigabit Ethernet"
    assert list(card.properties) == ["mac", "queues"]
    queues = card.properties["queues"]
    assert (queues.type, queues.default, queues.description) == ("uint16", 1, None)
    assert QEMU.device("usb-net").bus == "usb-bus"
    assert QEMU.device("mch").user_creatable is False
    assert QEMU.device("odd").properties == {}


def test_an_alias_is_the_device_it_means():
    assert QEMU.device("e1000-82540em").name == "e1000"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: QEMU.device("e100"),
            "device 'e100' is not available in QEMU 8.1.2; did you mean 'e1000'?",
        ),
        (lambda: QEMU.machine("q53"), "machine 'q53' is not available in QEMU 8.1.2"),
    ],
)
def test_what_is_missing_comes_with_what_is_close(ask, message):
    with pytest.raises(UnsupportedError) as caught:
        ask()
    assert str(caught.value).startswith(message)


def test_the_cached_form_holds_everything():
    again = Capabilities.from_bytes(QEMU.to_bytes())
    assert again == QEMU
    assert again.device("e1000") == QEMU.device("e1000")
    assert again.schema.commands == ("blockdev-add",)


def device(driver: str, **properties: object) -> Option:
    return Option("device", {"driver": driver, "id": "x", "bus": "b", **properties}, "nics[0]")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            device("igb"),
            "device igb is not available in QEMU 8.1.2 (nics[0]); there is e1000e",
        ),
        (
            device("e1000", queue=2),
            "property queue of device e1000 is not available in QEMU 8.1.2 (nics[0]); "
            "did you mean 'queues'?",
        ),
        (
            Option("machine", {"type": "pc-q35-9.0"}, "machine"),
            "machine pc-q35-9.0 is not available in QEMU 8.1.2 (machine); "
            "did you mean 'pc-q35-8.1'?",
        ),
        (
            Option("cpu", {"model": "qemu46"}, "cpus"),
            "CPU model qemu46 is not available in QEMU 8.1.2 (cpus); did you mean 'qemu64'?",
        ),
        (
            Option("blockdev", {"driver": "raw", "file": {"driver": "filee"}}, "disks[1]"),
            "block driver filee is not available in QEMU 8.1.2 (disks[1]); did you mean 'file'?",
        ),
        (
            Option("blockdev", {"driver": "file", "aio": "io_uring"}, "disks[1].aio"),
            "aio io_uring is not available in QEMU 8.1.2 (disks[1].aio)",
        ),
        (
            Option("display", {"type": "gtk"}),
            "display gtk is not available in QEMU 8.1.2",
        ),
        (
            Option("tpmdev", {"type": "passthrough"}, "tpm"),
            "TPM back end passthrough is not available in QEMU 8.1.2 (tpm)",
        ),
    ],
)
def test_what_an_option_lacks_is_named_with_its_field(option, message):
    with pytest.raises(UnsupportedError) as caught:
        QEMU.check([Option("nodefaults"), option])
    assert str(caught.value) == message


def test_a_machine_takes_so_many_processors():
    def machine(**count: int) -> list[Option]:
        smp = Option("smp", count, "cpus.count")
        more = Option("machine", {"memory-backend": "ram0"})
        return [Option("machine", {"type": "q35"}), more, smp]

    QEMU.check(machine(cpus=1, maxcpus=288))
    with pytest.raises(UnsupportedError) as caught:
        QEMU.check(machine(cpus=1, maxcpus=289))
    assert str(caught.value) == (
        "a number of 289 vCPUs is not available in QEMU 8.1.2 on machine q35 (cpus.count); "
        "it takes at most 288"
    )


def test_what_is_there_passes():
    QEMU.check(
        [
            device("e1000", mac="52:54:00:00:00:01", queues=Late("q")),
            device("e1000-82540em"),
            device("odd", anything=1),
            Option("machine", {"type": "q35"}),
            Option("machine", {"memory-backend": "ram0"}),
            Option("cpu", {"model": "max"}),
            Option("accel", Late("accel")),
            Option("accel", {"accel": "tcg", "tb-size": 128}),
            Option("numa", "node,nodeid=0"),
        ]
    )


def test_what_qemu_did_not_tell_is_not_refused():
    assert QEMU.netdevs == frozenset()
    QEMU.check([Option("netdev", {"type": "user"})])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_cache_is_told_or_read(data):
    whole = QEMU.to_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(msgspec.MsgspecError):
        Capabilities.from_bytes(whole[:cut])
