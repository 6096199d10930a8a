"""Every model of network card fetches from the host, through the user network, on pc and q35."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from attrs import frozen
from support.passt import needs_passt, needs_route
from support.qemu import needs_qemu

from pyvirt import VM, Machine, Nic, RunningVM, User, probe
from pyvirt.nic import Fd, Passt, Stream

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

#: The driver with which Linux drives each model; it has none for ne2k_isa.
DRIVERS = {
    "virtio-net": "virtio_net",
    "virtio-net-pci-transitional": "virtio_net",
    "virtio-net-pci-non-transitional": "virtio_net",
    "e1000": "e1000",
    "e1000-82540em": "e1000",
    "e1000-82544gc": "e1000",
    "e1000-82545em": "e1000",
    "e1000e": "e1000e",
    "vmxnet3": "vmxnet3",
    "rtl8139": "8139cp",
    "ne2k_pci": "ne2k-pci",
    "pcnet": "pcnet32",
    "tulip": "tulip",
    "usb-net": "cdc_ether",
    "i82550": "e100",
    "i82551": "e100",
    "i82557a": "e100",
    "i82557b": "e100",
    "i82557c": "e100",
    "i82558a": "e100",
    "i82558b": "e100",
    "i82559a": "e100",
    "i82559b": "e100",
    "i82559c": "e100",
    "i82559er": "e100",
    "i82562": "e100",
    "i82801": "e100",
    "igb": "igb",
}

#: Cards that are plugged into a guest that runs, and taken out.
PLUGGED = ("virtio-net", "e1000e", "vmxnet3", "rtl8139", "pcnet", "tulip", "i82559c", "usb-net",
           "igb")  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Says nothing."""


@frozen
class Host:
    """What the host offers to fetch: a file of `digest` at `port`."""

    port: int
    digest: str


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("served")
    data = os.urandom(100_000)
    Path(folder, "data").write_bytes(data)
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Host(server.server_port, hashlib.sha256(data).hexdigest())
        server.shutdown()


#: Each model on q35; on pc one of each kin, which saves the time of many ROMs.
KIN = {driver: model for model, driver in DRIVERS.items()}
CARDS = {"q35": list(DRIVERS), "pc": list(KIN.values())}
CASES = [(board, model) for board, models in CARDS.items() for model in models]


def models(board: str) -> list[str]:
    """The models for that board which this QEMU has."""
    found = probe("qemu-system-x86_64")
    there = {*found.devices, *found.aliases, "virtio-net"}
    return [model for model in CARDS[board] if model in there]


@pytest.fixture(scope="module")
def guests() -> Iterator[Callable[[str], RunningVM]]:
    """A guest on each board, with a card of each model, each on a network of its own."""
    with ExitStack() as stack:

        @cache
        def on(board: str) -> RunningVM:
            nics = [card(number, model) for number, model in enumerate(models(board))]
            running = VM(machine=board, accel="tcg", nics=nics).start()
            return stack.enter_context(running)

        yield on


def card(number: int, model: str) -> Nic:
    return Nic(User(net=f"10.77.{number}.0/24"), model=model, id=name(model), mac=mac(number))


def name(model: str) -> str:
    return f"card-{model}"


def mac(number: int) -> str:
    return f"52:54:00:00:07:{number:02x}"


def interface(guest: RunningVM, number: int) -> str:
    """The name of a card in the guest, once it has its address."""
    script = f"""
        until file=$(grep -l {mac(number)} /sys/class/net/*/address); do sleep 0.1; done
        file=${{file%/address}}
        until ip -4 addr show ${{file##*/}} | grep -q 'inet 10.77.{number}.'; do sleep 0.1; done
        echo ${{file##*/}}
    """
    return guest.run(script, timeout=60).check().stdout.strip()


def fetches(guest: RunningVM, host: Host, number: int) -> bool:
    """Whether the guest gets the host's file over that card, whole."""
    url = f"http://10.77.{number}.2:{host.port}/data"
    return host.digest in guest.run(f"wget -q -O - {url} | sha256sum", timeout=60).check().stdout


@pytest.mark.parametrize(("board", "model"), CASES)
def test_a_card_of_each_model_fetches(
    guests: Callable[[str], RunningVM], host: Host, board: str, model: str
) -> None:
    guest = guests(board)
    if name(model) not in guest.parts:
        pytest.skip(f"this QEMU has no {model}")
    number = [part for part in guest.parts if part.startswith("card-")].index(name(model))
    found = interface(guest, number)
    driver = guest.run(f"readlink /sys/class/net/{found}/device/driver").check().stdout
    assert driver.strip().rpartition("/")[2] == DRIVERS[model]
    assert fetches(guest, host, number)
    assert guest.network_statistics()[found].received > 100_000


@pytest.fixture(scope="module")
def roomy() -> Iterator[RunningVM]:
    """A guest into which cards of both kinds of PCI may be plugged."""
    machine = Machine("q35", hotplug_ports=4, hotplug_bridge=True)
    with VM(machine=machine, accel="tcg").start() as running:
        running.wait_for(agent=True)
        yield running


@pytest.mark.parametrize("model", PLUGGED)
def test_a_card_that_is_plugged_fetches_too(roomy: RunningVM, host: Host, model: str) -> None:
    if model not in models("q35"):
        pytest.skip(f"this QEMU has no {model}")
    number = PLUGGED.index(model)
    plugged = roomy.plug(card(number, model))
    found = interface(roomy, number)
    driver = roomy.run(f"readlink /sys/class/net/{found}/device/driver").check().stdout
    assert driver.strip().rpartition("/")[2] == DRIVERS[model]
    assert fetches(roomy, host, number)
    roomy.unplug(plugged)
    gone = f"until ! [ -e /sys/class/net/{found} ]; do sleep 0.1; done"
    roomy.run(gone, timeout=30).check()


@needs_passt
@needs_route
def test_a_card_on_passt_that_is_plugged_fetches_too(roomy: RunningVM, host: Host) -> None:
    number = 99
    passt = Passt(address=[f"10.77.{number}.15"], gateway=[f"10.77.{number}.2"])
    plugged = roomy.plug(Nic(passt, mac=mac(number)))
    interface(roomy, number)
    assert fetches(roomy, host, number)
    roomy.unplug(plugged)


#: Two cards of one guest, the second in a network namespace: else nothing would leave it.
PAIR = f"""
    near=$(grep -l {mac(1)} /sys/class/net/*/address); near=${{near%/address}}; near=${{near##*/}}
    far=$(grep -l {mac(2)} /sys/class/net/*/address); far=${{far%/address}}; far=${{far##*/}}
    unshare -n sleep 1000 & other=$!
    trap "kill $other" EXIT
    while [ $(readlink /proc/$other/ns/net) = $(readlink /proc/self/ns/net) ]; do sleep 0.1; done
    ip link set $far netns $other
    nsenter -t $other -n ip addr add 10.78.0.2/24 dev $far
    nsenter -t $other -n ip link set $far up
    ip addr add 10.78.0.1/24 dev $near
    ping -c 3 -s 1000 -W 20 10.78.0.2
"""


def test_cards_on_the_ends_of_a_socket_pair_that_are_plugged_reach_each_other(
    roomy: RunningVM,
) -> None:
    plugged = []
    for number, end in enumerate(socket.socketpair(), 1):
        with end:
            plugged.append(roomy.plug(Nic(Stream(Fd(end)), mac=mac(number))))
    there = "until [ $(ls /sys/class/net | wc -l) = 3 ]; do sleep 0.1; done"
    roomy.run(there, timeout=60).check()
    said = roomy.run(PAIR, timeout=90).check().stdout
    assert "3 packets received" in said
    for name in plugged:
        roomy.unplug(name)
