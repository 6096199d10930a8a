"""Cards and back ends on the installed QEMU: what it says of them is what was described."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nic import dhcp
from support.qemu import Refused, needs_qemu, start

from pyvirt.errors import CommandError
from pyvirt.nic import (
    Control,
    Dgram,
    Fd,
    Forward,
    GuestForward,
    Hub,
    Inet,
    L2tpv3,
    Nic,
    Offloads,
    Socket,
    Stream,
    Unix,
    User,
    VhostUser,
)
from pyvirt.nic.backend import Wire
from pyvirt.nic.flows import add_forward, forwards, remove_forward, set_link
from pyvirt.nic.mac import derived
from pyvirt.nic.model import MODELS
from pyvirt.qemu.need import GivenFds, Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At
from pyvirt.qemu.render import commands

pytestmark = needs_qemu

ELSEWHERE = {"igb", "usb-net", "ne2k_isa", "virtio-net-device"}
PCI_MODELS = sorted({*MODELS} - ELSEWHERE)


def port(number: int) -> Option:
    """A root port of its own, so that every card may be plugged later."""
    return Option(
        "device", {"driver": "pcie-root-port", "id": f"rp{number}", "chassis": number + 1}
    )


def made(nics, bus="rp{}"):
    """The options of each card, on a bus of its own."""
    for number, nic in enumerate(nics):
        at = At(f"nic{number}", {"bus": bus.format(number)} if bus else {}, vm="vm")
        yield list(nic.options(at))


def flat(groups):
    return [item for group in groups for item in group if isinstance(item, Option)]


def properties(qemu, name):
    """Every property of a device that a description could set, by its value."""
    path = f"/machine/peripheral/{name}"
    skipped = re.compile(r"^(child|link)<|^legacy-|^struct tm")
    listed = qemu.cmd("qom-list", path=path)
    names = [item["name"] for item in listed if not skipped.match(item["type"])]
    return {name: qemu.get(path, name) for name in names}


def classes(qemu):
    """The class and slot of each device on the first PCI bus that has an id."""
    devices = qemu.cmd("query-pci")[0]["devices"]
    return {
        device["qdev_id"]: (device["class_info"]["class"], device["slot"])
        for device in devices
        if device["qdev_id"]
    }


def peers(qemu):
    """What ``info network`` says: each card's model and address, and what is behind it."""
    text = qemu.hmp("info network")
    pattern = r"^(\S+): index=\d+,type=nic,model=(\S+?),macaddr=(\S+)\n(?: \\ (.*)\n)?"
    return {name: (model, mac, peer) for name, model, mac, peer in re.findall(pattern, text, re.M)}


def run(qemu, flow):
    """Drive a flow with the plain client."""
    step = next(flow)
    while True:
        try:
            try:
                result = qemu.cmd(step.name, step.arguments)
            except Refused as error:
                step = flow.throw(CommandError(step.name, error.kind, error.desc))
            else:
                step = flow.send(result)
        except StopIteration as stop:
            return stop.value


def plugged(qemu, options):
    for command in commands(options, {}):
        qemu.cmd(command.name, command.arguments)


def test_every_model_is_there_and_its_hot_twin_is_the_same():
    nics = [Nic(model=model, bootindex=n + 1) for n, model in enumerate(PCI_MODELS)]
    ports = [port(number) for number in range(len(nics))]
    with start([*ports, *flat(made(nics))]) as cold, start(ports) as hot:
        plugged(hot, flat(made(nics)))
        seen = peers(cold)
        for number, model in enumerate(PCI_MODELS):
            name = f"nic{number}"
            driver = "virtio-net-pci" if model == "virtio-net" else model
            driver = "e1000" if driver == "e1000-82540em" else driver
            assert cold.get(name, "type") == driver
            assert cold.get(name, "mac") == derived("vm", name)
            assert cold.get(name, "netdev") == f"{name}-net"
            assert cold.get(name, "bootindex") == number + 1
            assert seen[name][1:] == (
                derived("vm", name),
                f"{name}-net: index=0,type=user,net=10.0.2.0,restrict=off",
            )
            # A plugged card knows that it was.
            same = ("hotplugged", "romfile", "rombar")
            twin = {k: v for k, v in properties(hot, name).items() if k not in same}
            assert twin == {k: v for k, v in properties(cold, name).items() if k not in same}
        assert peers(hot) == seen


def test_every_model_is_a_network_card_at_its_address():
    groups = []
    for number, model in enumerate(PCI_MODELS):
        at = At(f"nic{number}", {"bus": "pcie.0", "addr": hex(number + 2)}, vm="vm")
        groups.append(list(Nic(model=model).options(at)))
    with start(flat(groups)) as qemu:
        assert classes(qemu) == {f"nic{n}": (0x200, n + 2) for n in range(len(PCI_MODELS))}


def test_usb_and_isa_cards_are_there():
    usb = list(Nic(model="usb-net").options(At("nic0", {"bus": "usb.0"}, vm="vm")))
    isa = list(Nic(model="ne2k_isa").options(At("nic1", vm="vm")))
    xhci = Option("device", {"driver": "qemu-xhci", "id": "usb"})
    with start([xhci, *flat([usb, isa])], machine="pc") as qemu:
        assert qemu.get("nic0", "mac") == derived("vm", "nic0")
        assert qemu.get("nic1", "mac") == derived("vm", "nic1")


def test_microvm_has_virtio_without_pci():
    options = list(Nic(mtu=1400).options(At("nic0", transport="mmio", vm="vm")))
    with start(options, machine="microvm") as qemu:
        assert qemu.get("nic0", "type") == "virtio-net-device"
        assert (qemu.get("nic0", "mac"), qemu.get("nic0", "host_mtu")) == (
            derived("vm", "nic0"), 1400,
        )  # fmt: skip


VIRTIO = [
    Nic(packed=True, rx_queue_size=1024, tx_queue_size=256),
    Nic(mrg_rxbuf=False, event_idx=False, indirect_desc=False),
    Nic(rss=True, hash=True, mtu=9000, speed=25000, duplex="full"),
    Nic(offloads=False),
    Nic(offloads=Offloads(guest_rsc_ext=True, rsc_interval=1000, host_ufo=False)),
    Nic(control=Control(ctrl_vq=False)),
    Nic(control=Control(ctrl_vlan=False, guest_announce=False)),
    Nic(iommu_platform=True, properties={"ats": True, "tx": "bh"}),
    Nic(failover=True, mac="52:54:00:AA:00:01"),
    Nic(model="virtio-net-pci-transitional", romfile=False),
    Nic(model="virtio-net-pci-non-transitional", properties={"page-per-vq": True}),
    Nic(model="e1000", properties={"mitigation": False}, romfile="efi-e1000.rom"),
    Nic(None, model="e1000e", properties={"subsys": 7}),
]  # the variants of virtio-net also check that a root port takes them


def test_qemu_says_of_every_property_what_was_described():
    groups = list(made(VIRTIO))
    ports = [port(number) for number in range(len(groups))]
    with start([*ports, *flat(groups)]) as qemu:
        for number, group in enumerate(groups):
            device = dict(group[-1].properties)
            for key in ("driver", "id", "bus"):
                device.pop(key)
            said = {key: qemu.get(f"nic{number}", key) for key in device}
            assert said == device


def test_failover_partners_start_with_one_address():
    pair = [Nic(failover=True), Nic(User(), model="e1000e", failover_pair_id="nic0")]
    with start([port(0), port(1), *flat(made(pair))]) as qemu:
        assert qemu.get("nic0", "failover") is True
        assert qemu.get("nic0", "mac") == derived("vm", "nic0")
        # The primary stays hidden until the guest's driver speaks of the standby.
        assert "nic1" not in peers(qemu)


def test_back_ends_are_what_was_described(tmp_path):
    odd = tmp_path / "a,b é.sock"
    line = tmp_path / "c,d"
    chardev = {"backend": "socket", "path": str(line), "server": True, "wait": False}
    backends = [
        (User(net="10.9.0.0/24", restrict=True), "user,net=10.9.0.0,restrict=on"),
        (Socket(listen="127.0.0.1:0"), "socket,"),
        (Socket(udp="127.0.0.1:9", localaddr="127.0.0.1:0"), "socket,socket: udp=127.0.0.1:9"),
        (Socket(mcast="230.0.0.1:14321", localaddr="127.0.0.1"),
         "socket,socket: mcast=230.0.0.1:14321"),
        (Stream(Unix(odd), server=True), "stream,"),
        (Stream(Inet("127.0.0.1", 0), server=True), "stream,"),
        (Stream(Unix(f"pyvirt,{tmp_path.name}", abstract=True), server=True), "stream,"),
        (Dgram(local=Inet("127.0.0.1", 0), remote=Inet("127.0.0.1", 9)),
         "dgram,udp=127.0.0.1:0/127.0.0.1:9"),
        (Dgram(local=Inet("127.0.0.1", 0), remote=Inet("230.0.0.1", 14322)),
         "dgram,mcast=230.0.0.1:14322"),
        (Dgram(local=Unix(tmp_path / "l,1"), remote=Unix(tmp_path / "r")),
         f"dgram,udp={tmp_path}/l,1:{tmp_path}/r"),
        (Hub(3, User(ipv6=False)), None),
        (Hub(3), None),
        (L2tpv3(src="127.0.0.1", dst="127.0.0.1", udp=True, srcport=16384, dstport=16385,
                txsession=1, txcookie=2, rxcookie=3), "l2tpv3,"),
        (User(guest_forwards=[
            GuestForward(address="10.0.2.100", port=7, command="cat -v"),
            GuestForward(address="10.0.2.101", port=7, chardev=chardev),
        ]), "user,"),
    ]  # fmt: skip
    groups = list(made([Nic(backend, model="e1000") for backend, _ in backends], bus=None))
    with start(flat(groups)) as qemu:
        text = qemu.hmp("info network")
        for number, (_, words) in enumerate(backends):
            if words is not None:
                assert f"nic{number}-net: index=0,type={words}" in text
        assert "hub 3\n" in text
        assert "nic10-net-uplinkport: nic10-net-uplink: index=0,type=user" in text
        assert "nic11-net: nic11: index=0,type=nic,model=e1000" in text
        assert all(path.is_socket() for path in (odd, line, tmp_path / "l,1"))
    for path in tmp_path.iterdir():
        path.unlink()
    with start([port(number) for number in range(len(groups))]) as qemu:
        plugged(qemu, flat(made([Nic(backend, model="e1000") for backend, _ in backends])))
        hot = qemu.hmp("info network")
        assert hot == text
        assert all(path.is_socket() for path in (odd, line, tmp_path / "l,1"))


# linux/virtio_config.h and QEMU's docs/interop/vhost-user.rst
VERSION_1, PROTOCOL_FEATURES, MULTIQUEUE = 1 << 32, 1 << 30, 1 << 0
GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM = 1, 15, 17
ANSWERS = {
    GET_FEATURES: VERSION_1 | PROTOCOL_FEATURES,
    GET_PROTOCOL_FEATURES: MULTIQUEUE,
    GET_QUEUE_NUM: 4,
}


def serve_vhost_user(server):
    """As much of a switch as QEMU wants before it starts: it says what it can."""
    line, _ = server.accept()
    with line, line.makefile("rb") as requests:
        while header := requests.read(12):
            request, _, size = struct.unpack("=III", header)
            requests.read(size)
            if request in ANSWERS:
                line.sendall(struct.pack("=IIIQ", request, 0x5, 8, ANSWERS[request]))


def test_a_vhost_user_card_has_its_queues(tmp_path):
    path = tmp_path / "switch,1"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        switch = threading.Thread(target=serve_vhost_user, args=[server])
        switch.start()
        nic = Nic(VhostUser(path), queues=2, tx_queue_size=1024)
        with start(list(nic.options(At("nic0", vm="vm")))) as qemu:
            assert qemu.get("nic0", "mq") is True
            assert qemu.get("nic0", "vectors") == 6
            assert qemu.get("nic0", "tx_queue_size") == 1024
            assert qemu.hmp("info network").count("type=vhost-user,vhost-user") == 2
        switch.join()


@pytest.fixture(scope="module")
def wire():
    """A QEMU without a machine, and a socket to its hub 0."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(20)
        options = list(Hub(0, Stream(Fd(theirs))).options(Wire("wire")))
        (need,) = [item for item in options if isinstance(item, Need)]
        assert isinstance(need, GivenFds)
        fd = need.fds[0]
        with start(
            options,
            machine="none",
            supplied={need.name: str(fd)},
            pass_fds=(fd,),
            stopped=False,
        ) as qemu:
            yield qemu, ours


@contextmanager
def user_network(qemu, user):
    """That user network on hub 0, as a plug would make it and an unplug take it away."""
    options = [item for item in Hub(0, user).options(Wire("net")) if isinstance(item, Option)]
    options.pop()  # The port for a card, which is not there.
    plugged(qemu, options)
    try:
        yield
    finally:
        for option in reversed(options):
            qemu.cmd("netdev_del", id=option.id)


def texts(limit):
    """Any text that fits `limit` bytes of UTF-8."""
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(characters, min_size=1, max_size=limit).filter(
        lambda text: len(text.encode()) <= limit
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostname=texts(32), bootfile=texts(127), server=texts(60), domain=texts(60))
def test_any_text_reaches_the_guest(wire, hostname, bootfile, server, domain):
    qemu, ours = wire
    user = User(hostname=hostname, bootfile=bootfile, tftp_server_name=server, domainname=domain)
    with user_network(qemu, user):
        offer = dhcp.ask(ours)
    assert offer.bootfile == bootfile.encode()
    assert offer.options[dhcp.HOSTNAME] == hostname.encode()
    assert offer.options[dhcp.TFTP_SERVER] == server.encode()
    assert offer.options[dhcp.DOMAIN] == domain.encode()


def test_a_longer_name_would_be_cut(wire):
    qemu, ours = wire
    long = "a" * 40
    with user_network(qemu, User(properties={"hostname": long})):
        assert dhcp.ask(ours).options[dhcp.HOSTNAME] == b"a" * 32


def test_a_guest_is_offered_the_network_described(wire):
    qemu, ours = wire
    user = User(
        net="10.7.0.0/16", host="10.7.9.1", dns="10.7.9.2", dhcpstart="10.7.3.4",
        dnssearch=["a.example", "b.example"],
    )  # fmt: skip
    with user_network(qemu, user):
        offer = dhcp.ask(ours)
    assert offer.address == str(user.guest) == "10.7.3.4"
    assert offer.address_of(dhcp.MASK) == "255.255.0.0"
    assert offer.address_of(dhcp.ROUTER) == "10.7.9.1"
    assert offer.address_of(dhcp.DNS) == "10.7.9.2"
    assert b"\x01a\x07example" in offer.options[dhcp.SEARCH]
    assert b"\x01b" in offer.options[dhcp.SEARCH]


@pytest.mark.parametrize("net", ["10.0.2.0/24", "192.168.7.0/28", "172.16.0.0/12", "10.0.0.0/4"])
def test_the_first_guests_address_is_foretold(wire, net):
    qemu, ours = wire
    with user_network(qemu, User(net=net)):
        assert dhcp.ask(ours).address == str(User(net=net).guest)


def test_a_pulled_cable_passes_nothing(wire):
    qemu, ours = wire
    with user_network(qemu, User()):
        run(qemu, set_link("net-uplink", False))
        dhcp.send(ours, dhcp.discover())
        ours.settimeout(0.2)
        with pytest.raises(TimeoutError):
            dhcp.receive(ours)
        ours.settimeout(20)
        run(qemu, set_link("net-uplink", True))
        assert dhcp.ask(ours).address == "10.0.2.15"


def test_forwards_come_and_go(wire):
    qemu, _ = wire
    with socket.socket() as taken, user_network(qemu, User(forwards=[Forward(0, 22)])):
        taken.bind(("127.0.0.1", 0))
        (first,) = run(qemu, forwards("net-uplink"))
        assert first.host > 0
        assert (first.guest, first.proto) == (22, "tcp")
        assert str(first.guest_address) == "10.0.2.15"

        tcp = run(qemu, add_forward("net-uplink", Forward(0, 22)))
        everywhere = run(qemu, add_forward("net-uplink", Forward(0, 53, "udp",
                                           host_address="0.0.0.0")))  # fmt: skip
        socket.create_connection(("127.0.0.1", tcp.host), timeout=10).close()
        ports = {(item.proto, item.host) for item in run(qemu, forwards("net-uplink"))}
        assert ports == {("tcp", first.host), ("tcp", tcp.host), ("udp", everywhere.host)}

        run(qemu, remove_forward("net-uplink", tcp))
        run(qemu, remove_forward("net-uplink", everywhere))
        assert len(run(qemu, forwards("net-uplink"))) == 1
        assert run(qemu, forwards("wire-uplink")) == []

        with pytest.raises(CommandError, match="not found"):
            run(qemu, remove_forward("net-uplink", tcp))
        with pytest.raises(CommandError, match="unrecognized netdev id 'nowhere'"):
            run(qemu, add_forward("nowhere", Forward(1234, 22)))
        used = Forward(taken.getsockname()[1], 22)
        with pytest.raises(CommandError, match="Could not set up host forwarding rule"):
            run(qemu, add_forward("net-uplink", used))


def test_a_card_can_start_with_its_cable_pulled(tmp_path):
    at = At("nic0", vm="vm")
    nic = Nic(model="rtl8139", link=False, dump=tmp_path / "a,b é.pcap")
    with start(list(nic.options(at)), machine="pc") as qemu:
        assert (tmp_path / "a,b é.pcap").read_bytes()[:4].hex() == "d4c3b2a1"
        for command in nic.adjustments(at):
            qemu.cmd(command.name, command.arguments)
        qemu.cmd("cont")
        status = rtl8139_port(qemu) + 0x58
        assert media_status(qemu, status) & 4  # LINKB: the link is bad.
        run(qemu, set_link("nic0", True))
        assert not media_status(qemu, status) & 4


def rtl8139_port(qemu):
    """Where the firmware put the card's registers; it does so before it does anything else."""
    for _ in range(1000):
        for device in qemu.cmd("query-pci")[0]["devices"]:
            regions = device["regions"]
            if device["qdev_id"] == "nic0" and regions and regions[0].get("address", -1) > 0:
                return regions[0]["address"]
        time.sleep(0.02)
    raise AssertionError("the firmware gave the card no address")


def media_status(qemu, port):
    return int(qemu.hmp(f"i /b {port}").split("=")[1], 16)
