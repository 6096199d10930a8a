"""Flows on devices: stepped by hand, and driven against a real QEMU."""

from __future__ import annotations

from typing import Any

import pytest
from support.parts import running
from support.ports import Ports
from support.qemu import Qemu, Refused, needs_qemu

from pyvirt.devices import Balloon, StdVga, Vnc, Watchdog
from pyvirt.devices.flows import (
    ABSENT,
    balloon,
    balloon_statistics,
    fresh_statistics,
    poll_balloon,
    set_balloon,
    set_spice_password,
    set_vnc_password,
    set_watchdog_action,
    settle_balloon,
)
from pyvirt.errors import CommandError, SpecError, TimedOut
from pyvirt.qmp.flow import Command, Flow, Pause, Until

IB700_START, SHORTEST = 0x443, 0x0F


def result(flow: Flow[Any], value: Any) -> Any:
    """What a flow returns when its last step gets `value`."""
    with pytest.raises(StopIteration) as caught:
        flow.send(value)
    return caught.value.value


def drive(flow: Flow[Any], qemu: Qemu) -> Any:
    """Run a flow of commands against a real QEMU."""
    answer = None
    try:
        step = next(flow)
        while True:
            assert isinstance(step, Command)
            try:
                answer = qemu.cmd(step.name, step.arguments)
            except Refused as error:
                step = flow.throw(CommandError(error.command, error.kind, error.desc))
            else:
                step = flow.send(answer)
    except StopIteration as end:
        return end.value


def test_settling_waits_until_the_guest_has_given_all():
    flow = settle_balloon(100, timeout=5)
    assert next(flow) == Command("balloon", {"value": 100})
    assert flow.send(None) == Command("query-balloon")
    assert flow.send({"actual": 300}) == Until("BALLOON_CHANGE", {}, 5)
    assert flow.send(object()) == Command("query-balloon")
    assert flow.send({"actual": 200}) == Until("BALLOON_CHANGE", {}, 5)
    assert flow.send(object()) == Command("query-balloon")
    assert result(flow, {"actual": 100}) == 100


def test_statistics_hold_only_what_the_guest_sent():
    flow = balloon_statistics("balloon0")
    path = {"path": "/machine/peripheral/balloon0", "property": "guest-stats"}
    assert next(flow) == Command("qom-get", path)
    stats = {"stat-free-memory": 4096, "stat-swap-in": ABSENT, "stat-htlb-pgalloc": -1}
    found = result(flow, {"last-update": 7, "stats": stats})
    assert (found.updated, found.values) == (7, {"free-memory": 4096})


def test_fresh_statistics_are_newer_ones():
    flow = fresh_statistics("balloon0", timeout=1)
    old = {"last-update": 7, "stats": {"stat-free-memory": 1}}
    new = {"last-update": 8, "stats": {"stat-free-memory": 2}}
    next(flow)
    assert flow.send(old) == Pause(0.1)
    assert isinstance(flow.send(None), Command)
    assert flow.send(old) == Pause(0.1)
    flow.send(None)
    assert result(flow, new).values == {"free-memory": 2}


def test_a_guest_that_sends_no_statistics_is_not_waited_for_for_ever():
    flow = fresh_statistics("balloon0", timeout=1, pause=0.5)
    old = {"last-update": 7, "stats": {}}
    next(flow)
    steps = [flow.send(old), flow.send(None), flow.send(old), flow.send(None)]
    assert [step for step in steps if isinstance(step, Pause)] == [Pause(0.5)] * 2
    with pytest.raises(TimedOut) as caught:
        flow.send(old)
    assert (caught.value.what, caught.value.seconds) == ("statistics of balloon balloon0", 1)


@pytest.mark.parametrize(
    ("flow", "field"),
    [
        (set_balloon(0), "size"),
        (poll_balloon("b", -1), "interval"),
        (set_watchdog_action("explode"), "action"),
        (set_vnc_password("123456789"), "password"),
    ],
)
def test_nonsense_is_not_sent(flow, field):
    with pytest.raises(SpecError) as caught:
        next(flow)
    assert caught.value.field == field


def test_a_spice_password_may_expire():
    steps = list(set_spice_password("x", connected="disconnect", expires="+60"))
    ticket = {"protocol": "spice", "password": "x", "connected": "disconnect"}
    expiry = {"protocol": "spice", "time": "+60"}
    assert steps == [Command("set_password", ticket), Command("expire_password", expiry)]


@needs_qemu
def test_the_balloon_of_a_real_qemu():
    with running(Balloon(), words=("-m", "256M")) as lab:
        assert drive(balloon(), lab.qemu) == 256 << 20
        drive(set_balloon(128 << 20), lab.qemu)
        drive(poll_balloon("balloon0", 3), lab.qemu)
        assert lab.qemu.get("balloon0", "guest-stats-polling-interval") == 3
        assert drive(balloon_statistics("balloon0"), lab.qemu).values == {}


@needs_qemu
def test_passwords_of_a_real_qemu():
    with running(StdVga(), Vnc(password="")) as lab:
        drive(set_vnc_password("geheim", display="vnc0", expires="+60"), lab.qemu)
    with running(StdVga(), Vnc()) as lab, pytest.raises(CommandError) as caught:
        drive(set_vnc_password("geheim"), lab.qemu)
    assert caught.value.command == "set_password"


@needs_qemu
def test_a_watchdog_that_is_not_fed_does_what_was_said_last():
    with Ports() as ports:
        watchdog = Watchdog("pause", model="ib700")
        more = {"extra_fds": (ports.fd,), "stopped": False}
        with running(watchdog, words=ports.words, **more) as lab:
            lab.qemu.cmd("cont")
            ports.write(IB700_START, SHORTEST)
            assert lab.qemu.wait("WATCHDOG")["data"] == {"action": "pause"}
            drive(set_watchdog_action("none"), lab.qemu)
            lab.qemu.cmd("cont")
            ports.write(IB700_START, SHORTEST)
            assert lab.qemu.wait("WATCHDOG")["data"] == {"action": "none"}
