"""Taps for real, in a network namespace that the test makes and that ends with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from nic import dhcp
from support.namespace import Namespace, namespace
from support.qemu import needs_qemu, start

from pyvirt.errors import UnsupportedError
from pyvirt.nic import Fd, Hub, Nic, Rate, Stream, Tap
from pyvirt.nic.backend import Wire
from pyvirt.qemu.need import GivenFds, Need, TapFds, VhostFds
from pyvirt.qemu.part import At
from pyvirt.running.host.tap import limit, open_tap, tap_name

pytestmark = pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")


@pytest.fixture
def net() -> Iterator[Namespace]:
    try:
        with namespace() as made:
            if not os.path.exists("/dev/net/tun"):
                pytest.skip("this host has no /dev/net/tun")
            yield made
    except PermissionError:
        pytest.skip("making a network namespace needs root")


@pytest.fixture
def opened(net) -> Iterator[object]:
    """Opens taps in the namespace and closes them at the end."""
    fds: list[int] = []

    def open_(**given):
        mine = net(open_tap, TapFds("nic0-net", **given))
        fds.extend(mine)
        return mine

    yield open_
    for fd in fds:
        os.close(fd)


def names(net) -> set[str]:
    return {line.split()[0].split("@")[0] for line in net.sh("ip -br link").splitlines()}


def test_a_tap_is_made_and_ends_with_its_queues(net):
    fds = net(open_tap, TapFds("nic0-net", queues=2, mtu=1400))
    name = tap_name(fds[0])
    assert len(fds) == 2
    assert tap_name(fds[1]) == name
    shown = net.sh(f"ip -d link show {name}")
    for words in ("UP", "mtu 1400", "vnet_hdr on", "multi_queue", "persist off", "ether fe:"):
        assert words in shown
    os.close(fds[0])
    assert name in names(net)
    os.close(fds[1])
    assert name not in names(net)


def test_a_tap_has_the_name_and_the_bridge_asked_for(net, opened):
    net.sh("ip link add br0 type bridge; ip link set br0 address 52:54:00:00:00:01 up")
    (fd,) = opened(ifname="mine0", bridge="br0", vnet_header=False)
    assert tap_name(fd) == "mine0"
    shown = net.sh("ip -d link show mine0")
    assert "master br0" in shown
    assert "vnet_hdr off" in shown
    assert "52:54:00:00:00:01" in net.sh("ip link show br0")


@pytest.mark.parametrize("queues", [1, 2])
def test_a_users_tap_is_used_and_stays(net, queues):
    net.sh("ip tuntap add dev own0 mode tap multi_queue; ip link set own0 mtu 1300")
    fds = net(open_tap, TapFds("nic0-net", ifname="own0", queues=queues))
    assert f"numqueues {queues}" in net.sh("ip -d link show own0")
    for fd in fds:
        os.close(fd)
    assert "mtu 1300" in net.sh("ip link show own0")


def test_a_users_tap_that_is_ready_is_left_alone(net, opened):
    net.sh("ip link add br0 type bridge; ip tuntap add dev own0 mode tap")
    net.sh("ip link set own0 up master br0")
    before = net.sh("ip -d link show own0 | grep -v link/ether")
    opened(ifname="own0", bridge="br0")
    assert "master br0" in net.sh("ip link show own0")
    assert "master br0" in before


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"ifname": "lo"}, OSError, "it is not a tap"),
        ({"ifname": "own0", "queues": 2}, UnsupportedError,
         "more than one queue is not available in own0; make it so: "
         "ip tuntap add dev own0 mode tap multi_queue"),
        ({"bridge": "br9"}, UnsupportedError,
         "the bridge br9 is not available in this host; make it: ip link add br9 type bridge"),
        ({"bridge": "lo"}, OSError, "lo is not a bridge"),
        ({"ifname": "own0", "bridge": "br1"}, OSError, "it belongs to another bridge than br1"),
        ({"mtu": 70000}, OSError, "it takes no MTU of 70000"),
        ({"ifname": "busy0"}, OSError, "the tap is in use by another process"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_stays(net, opened, given, error, words):
    net.sh("ip tuntap add dev own0 mode tap")
    net.sh("ip link add br0 type bridge; ip link add br1 type bridge; ip link set own0 master br0")
    opened(ifname="busy0")
    before, descriptors = names(net), set(os.listdir("/proc/self/fd"))
    with pytest.raises(error, match=words):
        opened(**given)
    assert names(net) == before
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_without_rights_it_says_what_they_are():
    if os.getuid() != 0:
        pytest.skip("giving up rights needs root")
    code = (
        "import os\n"
        "from pyvirt.running.host.tap import open_tap\n"
        "from pyvirt.qemu.need import TapFds\n"
        "from pyvirt.errors import UnsupportedError\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: open_tap(TapFds('n'))\n"
        "except UnsupportedError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    if os.stat("/dev/net/tun").st_mode & 0o006 == 0o006:
        assert done.stdout.startswith("making the tap is not available in this process; it needs")
    else:
        assert done.stdout == (
            "/dev/net/tun is not available in this process; it needs read and write\n"
        )


def test_killing_the_owner_takes_the_tap_away(net):
    code = (
        "from pyvirt.running.host.tap import open_tap\n"
        "from pyvirt.qemu.need import TapFds\n"
        "open_tap(TapFds('n', ifname='gone0')); print('ready', flush=True)\n"
        "import time; time.sleep(60)"
    )
    child = net(subprocess.Popen, [sys.executable, "-c", code], stdout=subprocess.PIPE)
    with child:
        assert child.stdout.readline() == b"ready\n"
        assert "gone0" in names(net)
        child.send_signal(signal.SIGKILL)
    assert "gone0" not in names(net)


needs_tc = pytest.mark.skipif(shutil.which("tc") is None, reason="tc is not installed")


@needs_tc
def test_what_a_guest_receives_is_limited(net, opened):
    try:
        (fd,) = opened(receive=1_000_000)
    except UnsupportedError as error:
        pytest.skip(str(error))
    name = tap_name(fd)
    assert "tbf" in net.sh(f"tc qdisc show dev {name}")
    assert "rate 8Mbit burst 128Kb lat 50" in net.sh(f"tc qdisc show dev {name}")
    net(limit, name, Rate(receive="4M", burst="1M"))
    assert "rate 33554Kbit burst 1Mb" in net.sh(f"tc qdisc show dev {name}")
    net(limit, name, None)
    assert "tbf" not in net.sh(f"tc qdisc show dev {name}")


@needs_tc
def test_what_a_guest_sends_is_limited_or_refused(net, opened):
    try:
        (fd,) = opened(receive=1_000_000)
    except UnsupportedError as error:
        pytest.skip(str(error))
    name = tap_name(fd)
    refusal = None
    try:
        net(limit, name, Rate(receive=2_000_000, send=1_000_000))
    except UnsupportedError as error:
        refusal = error
    if refusal is not None:
        assert refusal.where == "the running kernel"
        assert "act_police" in refusal.hint
        assert "ingress" not in net.sh(f"tc qdisc show dev {name}")
        assert "rate 8Mbit" in net.sh(f"tc qdisc show dev {name}")  # as it was
        return
    assert "police" in net.sh(f"tc filter show dev {name} ingress")
    assert "rate 8Mbit" in net.sh(f"tc filter show dev {name} ingress")
    net(limit, name, None)
    assert "ingress" not in net.sh(f"tc qdisc show dev {name}")


def test_a_limit_holds(net, opened):
    rate, burst = 2_000_000, 256 * 1024
    try:
        (fd,) = opened(ifname="slow0", receive=rate, burst=burst, vnet_header=False)
    except UnsupportedError as error:
        pytest.skip(str(error))
    frame = b"\xff" * 6 + dhcp.MAC + b"\x88\xb5" + bytes(1400)
    os.set_blocking(fd, False)
    with net(socket.socket, socket.AF_PACKET, socket.SOCK_RAW) as out:
        net(out.bind, ("slow0", 0))
        begin, passed = time.monotonic(), 0
        while time.monotonic() < begin + 0.3:
            # EAGAIN or ENOBUFS: the queue is full most of the time, and that is the limit.
            with suppress(OSError):
                out.send(frame, socket.MSG_DONTWAIT)
            passed += drained(fd)
        seconds = time.monotonic() - begin
    assert burst / 2 < passed < burst + 1.5 * rate * seconds


def drained(fd: int) -> int:
    """The bytes of the frames that arrived at the guest's end."""
    total = 0
    while True:
        try:
            total += len(os.read(fd, 65536))
        except BlockingIOError:
            return total


@needs_qemu
def test_a_card_has_the_queues_of_its_tap(net, opened):
    fds = opened(queues=4)
    options = list(Nic(Tap(vhost=False), queues=4).options(At("nic0", vm="vm")))
    words = ":".join(map(str, fds))
    with start(options, supplied={"nic0-net": words}, pass_fds=tuple(fds)) as qemu:
        assert qemu.get("nic0", "mq") is True
        assert qemu.get("nic0", "vectors") == 10
        text = qemu.hmp("info network")
        assert text.count("type=tap,fd=") == 4


@needs_qemu
def test_a_card_without_vhost_net_starts_all_the_same(net, opened):
    """QEMU 7.2 aborts when it is to open ``/dev/vhost-net`` and cannot, so it never is."""
    (fd,) = opened()
    options = list(Nic(Tap()).options(At("nic0", vm="vm")))
    vhost = [item for item in options if isinstance(item, VhostFds)]
    assert [need.optional for need in vhost] == [True]
    supplied = {"nic0-net": str(fd), vhost[0].name: ""}
    with start(options, supplied=supplied, pass_fds=(fd,)) as qemu:
        assert "type=tap,fd=" in qemu.hmp("info network")


@needs_qemu
def test_frames_pass_between_host_and_qemu(net, opened):
    (fd,) = opened(ifname="wire0")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(20)
        hub = [
            *Hub(0, Tap(vhost=False)).options(Wire("a")),
            *Hub(0, Stream(Fd(theirs))).options(Wire("b")),
        ]
        (given,) = [item for item in hub if isinstance(item, GivenFds)]
        tap = next(item for item in hub if isinstance(item, Need) and item is not given)
        supplied = {tap.name: str(fd), given.name: str(given.fds[0])}
        running = start(
            hub, machine="none", supplied=supplied, pass_fds=(fd, *given.fds), stopped=False
        )
        with running, net(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0x0300) as host:
            net(host.bind, ("wire0", 0x88B5))
            host.settimeout(20)
            frame = b"\xff" * 6 + dhcp.MAC + b"\x88\xb5" + b"to the host".ljust(60, b".")
            dhcp.send(ours, frame)
            assert host.recv(2000) == frame
            answer = dhcp.MAC + b"\xfe" * 6 + b"\x88\xb5" + b"to the guest".ljust(60, b".")
            host.send(answer)
            while (seen := dhcp.receive(ours)) != answer:
                assert seen[12:14] != b"\x88\xb5"
