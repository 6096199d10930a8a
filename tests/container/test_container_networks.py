"""Networks of containers, on bridges and cards that the tests make and remove."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.containers import needs_containers

from pyvirt import Container, RunningContainer
from pyvirt.container import HostNetwork, Macvlan, Physical, Veth
from pyvirt.running.lxc.store import Store

pytestmark = [needs_containers, pytest.mark.timeout(240)]


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture
def bridge() -> Iterator[str]:
    name = f"pvb{os.getpid()}"[:15]
    ip("link", "add", name, "type", "bridge")
    try:
        ip("addr", "add", "198.18.77.1/24", "dev", name)
        ip("link", "set", name, "up")
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)


@pytest.fixture
def pair() -> Iterator[tuple[str, str]]:
    names = (f"pva{os.getpid()}"[:15], f"pvz{os.getpid()}"[:15])
    ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
    try:
        yield names
    finally:
        subprocess.run(["ip", "link", "del", names[1]], check=True)


def test_two_on_a_bridge_hear_each_other(bridge: str, store: Store) -> None:
    cards = [
        Veth(
            bridge,
            addresses=[f"198.18.77.{n}/24", f"fd77::{n}/64"],
            gateways=["198.18.77.1"],
            mac=f"02:00:00:00:77:0{n}",
            mtu=1400,
        )
        for n in (2, 3)
    ]
    start = RunningContainer.start
    with (
        start(Container(nics=[cards[0]]), store=store) as one,
        start(Container(nics=[cards[1]], hostname="other"), store=store) as other,
    ):
        assert one.addresses()["eth0"][0] == "198.18.77.2/24"
        assert one.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu").stdout == (
            "02:00:00:00:77:02\n1400\n"
        )
        assert "default via 198.18.77.1" in one.run("ip route").stdout
        with other.spawn("nc -l -p 700 -e hostname"):
            other.wait_for(port=700, timeout=60)
            heard = one.run("nc 198.18.77.3 700 </dev/null", timeout=60)
        assert heard.stdout == "other\n"
        assert one.network_statistics()["eth0"].sent > 0
        assert one.stats().network["eth0"].received > 0
        ends = [path.name for path in Path(f"/sys/class/net/{bridge}/brif").iterdir()]
        assert len(ends) == 2
    assert not [end for end in ends if Path("/sys/class/net", end).exists()]


def test_a_macvlan_is_a_card_of_its_own(pair: tuple[str, str], store: Store) -> None:
    card = Macvlan(pair[1], mode="bridge", name="wan", addresses=["198.18.78.2/24"])
    with RunningContainer.start(Container(nics=[card]), store=store) as running:
        assert running.addresses()["wan"][0] == "198.18.78.2/24"


def test_a_card_is_lent_and_comes_back(pair: tuple[str, str], store: Store) -> None:
    card = Physical(pair[0], name="lent0")
    with RunningContainer.start(Container(), store=store) as running:
        assert running.plug(card) == "lent0"
        assert not Path("/sys/class/net", pair[0]).exists()
        assert "lent0" in running.addresses()
        running.unplug(card)
        assert Path("/sys/class/net", pair[0]).exists()
        assert "lent0" not in running.addresses()


def test_the_hosts_network_is_shared_when_that_is_asked_for(bridge: str, store: Store) -> None:
    described = Container(nics=[HostNetwork()], idmap=None)
    with RunningContainer.start(described, store=store) as running:
        assert "198.18.77.1/24" in running.addresses()[bridge]
