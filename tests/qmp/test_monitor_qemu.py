"""The blocking monitor on a real QEMU."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from qmp_peers import needs_qemu, qemu

from pyvirt.errors import ClosedError, CommandError, SpecError, TimedOut, UnsupportedError
from pyvirt.qmp.flow import Command, Until
from pyvirt.running.wire.monitor import Monitor

pytestmark = needs_qemu

YANKABLE = [{"type": "chardev", "id": "m"}]


@pytest.fixture(scope="module")
def monitor():
    with qemu(machine="q35") as (sock, _), Monitor.open(sock, timeout=30) as opened:
        yield opened


def test_commands_from_many_threads(monitor):
    def ask(_):
        return {monitor.execute("query-status")["status"] for _ in range(100)}

    with ThreadPoolExecutor(4) as pool:
        assert set.union(*pool.map(ask, range(4))) == {"prelaunch"}


def test_a_refusal_is_qemus_own(monitor):
    with pytest.raises(CommandError) as caught:
        monitor.execute("no-such-command")
    error = caught.value
    assert (error.command, error.kind) == ("no-such-command", "CommandNotFound")
    assert str(error) == (
        "no-such-command: The command no-such-command has not been found (CommandNotFound)"
    )


def test_strings_of_any_kind_survive(monitor):
    for name in ("plain", 'qu"ote', "back\\slash", "grüße 😀", "tab\tand\nline"):
        with pytest.raises(CommandError) as caught:
            monitor.execute("qom-get", {"path": f"/{name}", "property": "x"})
        assert caught.value.kind == "DeviceNotFound"
        assert name in caught.value.desc


def test_descriptors_travel_with_their_commands(monitor):
    ends = [os.pipe() for _ in range(20)]
    futures = [
        monitor.begin(Command("add-fd", {"fdset-id": number, "opaque": str(number)}, (read,)))
        for number, (read, _) in enumerate(ends)
    ]
    for read, _ in ends:
        os.close(read)  # it was duplicated, or sent
    fds = [future.result(10)["fd"] for future in futures]
    assert len(set(fds)) == 20
    sets = {one["fdset-id"]: one["fds"][0] for one in monitor.execute("query-fdsets")}
    assert [sets[number]["opaque"] for number in range(20)] == [str(n) for n in range(20)]
    for number in range(20):
        monitor.execute("remove-fd", {"fdset-id": number})
    for _, write in ends:
        os.close(write)


def test_a_descriptor_passed_is_the_one_that_arrives(monitor):
    read, write = os.pipe()
    monitor.execute("getfd", {"fdname": "p"}, fds=[write])
    os.close(write)
    monitor.execute("closefd", {"fdname": "p"})
    assert os.read(read, 1) == b""  # the last writing end was QEMU's, and it closed that
    os.close(read)


def test_events_of_a_flow_are_not_missed(monitor):
    def flow():
        yield Command("cont")
        yield Command("stop")
        resumed = yield Until("RESUME", timeout=10)
        return resumed, (yield Until("STOP", timeout=10))

    resumed, stopped = monitor.run(flow(), timeout=30)
    assert (resumed.name, stopped.name) == ("RESUME", "STOP")
    assert abs(stopped.time - time.time()) < 3600


def test_typed_commands_are_checked_and_run(monitor):
    assert monitor.qmp.query_status() == monitor.execute("query-status")
    monitor.qmp.blockdev_add(driver="null-co", node_name="typed", size=1 << 20)
    nodes = monitor.qmp.query_named_block_nodes(flat=True)
    assert [node["node-name"] for node in nodes] == ["typed"]
    monitor.qmp.blockdev_del(node_name="typed")
    with pytest.raises(SpecError, match=r"blockdev-add.drvier is unknown|driver is missing"):
        monitor.qmp.blockdev_add(drvier="null-co")
    with pytest.raises(UnsupportedError, match="did you mean 'query-status'"):
        monitor.qmp.query_statu()
    assert monitor.qmp(timeout=30).query_version()["qemu"]["major"] >= 7
    assert "query_block" in dir(monitor.qmp)


def test_out_of_band_commands_overtake():
    with qemu() as (sock, _), Monitor.open(sock, timeout=30, oob=True) as monitor:
        assert monitor.execute("query-yank", oob=True) == YANKABLE
        slow = [monitor.begin(Command("query-qmp-schema")) for _ in range(4)]
        assert monitor.execute("query-yank", oob=True) == YANKABLE
        assert all(len(future.result(30)) > 500 for future in slow)


def test_out_of_band_is_refused_where_it_was_not_asked_for(monitor):
    with pytest.raises(UnsupportedError, match="open it with oob=True"):
        monitor.execute("query-yank", oob=True)
    assert monitor.execute("query-yank") == YANKABLE


def test_pretty_replies_are_understood(tmp_path):
    path = tmp_path / "pretty"
    chardev = f"socket,id=p,path={path},server=on,wait=off"
    with (
        qemu("-chardev", chardev, "-mon", "chardev=p,mode=control,pretty=on") as (sock, _),
        Monitor.open(sock, timeout=30) as plain,
        Monitor.connect(path, timeout=30) as pretty,
    ):
        assert pretty.fetch("query-version").count(b"\n") > 3
        assert pretty.execute("query-version") == plain.execute("query-version")
        assert pretty.execute("query-qmp-schema") == plain.execute("query-qmp-schema")


def test_death_is_told_to_all_at_once():
    with qemu() as (sock, process):
        words = "killed by SIGKILL"
        with Monitor.open(sock, timeout=30, explain=lambda: words) as monitor:
            queue = monitor.events("SHUTDOWN")
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(monitor.run, never())
                time.sleep(0.05)
                process.send_signal(signal.SIGKILL)
                assert str(waiting.exception(10)) == "QEMU is closed: killed by SIGKILL"
            with pytest.raises(ClosedError):
                queue.get(10)
            with pytest.raises(ClosedError):
                monitor.execute("query-status")


def never():
    yield Until("NEVER")


def test_a_client_of_its_socket_may_come_back(tmp_path):
    path = tmp_path / "qmp"
    chardev = f"socket,id=s,path={path},server=on,wait=off"
    with qemu("-chardev", chardev, "-mon", "chardev=s,mode=control") as (first, _):
        Monitor.open(first, timeout=30).close()
        for _ in range(2):
            with Monitor.connect(path, timeout=30) as monitor:
                assert monitor.execute("query-status")["status"] == "prelaunch"
                with pytest.raises(TimedOut, match="is there another"):
                    Monitor.connect(path, timeout=0.2)
        with Monitor.connect(path, timeout=30, reconnect=True) as monitor:
            lost = monitor.begin(Command("query-qmp-schema"))
            monitor._channel.sever()
            assert isinstance(lost.exception(30), ClosedError)
            assert monitor.execute("query-version", timeout=30)["qemu"]["major"] >= 7
            assert monitor.reconnected == 1
