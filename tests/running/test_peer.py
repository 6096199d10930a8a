"""passt for real: it answers a guest's DHCP, and ends when its socket does."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest
from nic import dhcp
from support.passt import needs_passt, needs_route
from support.qemu import needs_qemu, start

from pyvirt.errors import StartError, UnsupportedError
from pyvirt.nic import Forward, Nic, Passt
from pyvirt.nic.backend import Wire
from pyvirt.qemu.need import Peer
from pyvirt.qemu.part import At
from pyvirt.running.children.peer import start as start_peer

ADDRESS, GATEWAY = "192.0.2.77", "192.0.2.1"


def need(**given) -> Peer:
    (found,) = (item for item in Passt(**given).options(Wire("net")) if isinstance(item, Peer))
    return found


@contextmanager
def running(**given):
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(20)
        with theirs, start_peer(need(**given), theirs.fileno(), {}) as process:
            theirs.close()
            yield process, ours


@needs_passt
@needs_route
def test_it_gives_the_guest_what_was_described():
    with running(address=[ADDRESS], gateway=[GATEWAY], mtu=1400, dns=["192.0.2.53"]) as (_, ours):
        offer = dhcp.ask(ours)
    assert offer.address == ADDRESS
    assert offer.address_of(dhcp.ROUTER) == GATEWAY
    assert offer.address_of(dhcp.DNS) == "192.0.2.53"
    assert offer.options[26] == (1400).to_bytes(2, "big")


@needs_passt
@needs_route
def test_it_forwards_ports():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running(forwards=[Forward(port, 80)]) as (_, ours):
        dhcp.ask(ours)
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            while b"\x00\x50" not in (frame := dhcp.receive(ours))[36:38]:
                assert frame


@needs_passt
@needs_route
def test_it_ends_with_its_socket():
    with running() as (process, ours):
        assert process.exit is None
        ours.close()
        assert process.wait(20).code == 0


@needs_passt
@needs_route
def test_killing_its_owner_ends_it():
    # As root it becomes nobody, and the kernel forgets the parent-death signal.
    code = (
        "import socket, time\n"
        "from pyvirt.nic import Passt\n"
        "from pyvirt.nic.backend import Wire\n"
        "from pyvirt.running.children.peer import start\n"
        "ours, theirs = socket.socketpair()\n"
        "process = start(next(Passt().options(Wire('n'))), theirs.fileno(), {})\n"
        "theirs.close(); print(process.pid, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with child:
        pidfd = os.pidfd_open(int(child.stdout.readline()))
        child.kill()
    ended, _, _ = select.select([pidfd], [], [], 20)
    os.close(pidfd)
    assert ended


@needs_passt
@needs_route
@needs_qemu
def test_a_card_has_it_behind():
    options = list(Nic(Passt(address=[ADDRESS])).options(At("nic0", vm="vm")))
    (peer,) = [item for item in options if isinstance(item, Peer)]
    ours, theirs = socket.socketpair()
    with ours, theirs, start_peer(peer, theirs.fileno(), {}) as process:
        theirs.close()
        fd = ours.fileno()
        with start(options, supplied={peer.name: str(fd)}, pass_fds=(fd,)) as qemu:
            ours.close()
            assert "nic0-net: index=0,type=socket" in qemu.hmp("info network")
            assert process.exit is None
        assert process.wait(20).code == 0


@needs_passt
@pytest.mark.parametrize(
    ("given", "words"),
    [({"arguments": ["--no-such-option"]}, "no-such-option"), ({"interface": "nope0"}, "nope0")],
)
def test_its_last_words_tell_why_it_did_not_start(given, words):
    with socket.socket() as end, pytest.raises(StartError) as caught:
        start_peer(need(**given), end.fileno(), {})
    assert (caught.value.program, caught.value.why) == ("passt", "exit code 1")
    assert words in caught.value.words


def test_without_it_the_error_names_the_package():
    with pytest.raises(UnsupportedError) as caught:
        start_peer(need(program="no-such-passt"), 5, {})
    assert str(caught.value) == (
        "no-such-passt is not available in this host; install the package passt"
    )
