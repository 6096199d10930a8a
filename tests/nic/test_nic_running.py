"""Cards of a VM that runs: taps made, plugged, limited and gone with it."""

from __future__ import annotations

import shutil

import pytest
from support.namespace import namespace
from support.qemu import needs_qemu

from pyvirt import VM
from pyvirt.boot import Firmware
from pyvirt.errors import CommandError, SpecError, UnsupportedError
from pyvirt.nic import Hub, Nic, Rate, Tap, User
from pyvirt.running.children.process import spawn

pytestmark = [
    needs_qemu,
    pytest.mark.skipif(shutil.which("tc") is None, reason="iproute2 is not installed"),
]

EMPTY = Firmware(strict=True)


@pytest.fixture
def net():
    # The thread that starts all children is made for the first: in this process's namespace.
    spawn(["true"]).wait(20)
    try:
        with namespace() as made:
            made.sh("ip link set lo up; ip link add br0 type bridge; ip link set br0 up")
            yield made
    except PermissionError:
        pytest.skip("making a network namespace needs root")


def names(net):
    return {line.split()[0] for line in net.sh("ip -br link").splitlines()} - {"lo", "br0"}


def shown(vm):
    return vm.qmp.human_monitor_command(command_line="info network")


def started():
    """A VM with a limited tap of two queues."""
    card = Nic(Tap(ifname="cold0", bridge="br0"), queues=2, rate=Rate(receive="1M"))
    try:
        return VM(boot=EMPTY, memory="64M", nics=[card], paused=True, agents=()).start()
    except UnsupportedError as error:
        pytest.skip(str(error))


def test_taps_live_as_long_as_their_vm(net):
    with net(started) as vm:
        assert names(net) == {"cold0"}
        assert shown(vm).count("nic0-net: ") == 2
        assert "tbf" in net.sh("tc qdisc show dev cold0")
        net(vm.set_rate, "nic0", Rate(receive="4M"))
        assert "rate 33554Kbit" in net.sh("tc qdisc show dev cold0")

        name = net(vm.plug, Nic(Tap(ifname="hot0"), queues=2, link=False))
        assert names(net) == {"cold0", "hot0"}
        assert shown(vm).count(f"{name}-net: index=1,type=tap") == 1

        for wrong in (Nic(Tap(ifname="more0", bridge="nope")), Nic(Tap(ifname="more0"), id="nic0")):
            with pytest.raises((UnsupportedError, SpecError)):
                net(vm.plug, wrong)
        with pytest.raises(CommandError, match="no-such"):
            net(vm.plug, Nic(Tap(ifname="more0"), romfile="no-such.rom"))
        assert names(net) == {"cold0", "hot0"}
    assert names(net) == set()


def test_ports_are_forwarded_through_a_hub(net):
    nics = [Nic(Hub(0), model="e1000"), Nic(Hub(0, User()), model="e1000")]
    with VM(boot=EMPTY, memory="64M", nics=nics, paused=True, agents=()).start() as vm:
        forward = vm.forward(22)
        assert forward.host > 0
        assert f" {forward.host} " in vm.qmp.human_monitor_command(command_line="info usernet")
        vm.unforward(forward)
        with pytest.raises(CommandError, match="not found"):
            vm.unforward(forward)
        with pytest.raises(SpecError, match="must be a card on a Tap that pyvirt opened"):
            vm.set_rate("nic0", "1M")


def test_cards_have_one_address_each_except_for_partners():
    pair = [Nic(failover=True, id="net0"), Nic(model="e1000e", failover_pair_id="net0")]
    assert VM(nics=pair).command_line().count('"mac":"52:54:00:') == 2
    twins = [Nic(mac="52:54:00:00:00:01"), Nic(mac="52:54:00:00:00:01")]
    with pytest.raises(SpecError) as caught:
        VM(nics=twins).command_line()
    assert caught.value.field == "nics[1].mac"


def test_the_same_names_give_the_same_addresses():
    def addresses(name):
        words = VM(name=name, nics=[Nic(), Nic()]).command_line()
        return [part[:17] for part in words.split('"mac":"')[1:]]

    assert addresses("a") == addresses("a")
    assert len({*addresses("a"), *addresses("b")}) == 4
