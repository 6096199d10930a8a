"""Bring a described VM to life, or leave nothing behind."""

from __future__ import annotations

import attrs

from pyvirt.errors import ClosedError, StartError, TimedOut
from pyvirt.flows.steps import Act
from pyvirt.plan import MONITOR, Plan, plan
from pyvirt.qemu.render import argv
from pyvirt.qmp.flow import Command
from pyvirt.running.accel import choose
from pyvirt.running.agent import NativeAgent
from pyvirt.running.console import Console
from pyvirt.running.engine import Engine, VMMonitor
from pyvirt.running.probe import probe
from pyvirt.running.process import spawn
from pyvirt.running.qga import QemuGuestAgent
from pyvirt.vm import VM


def start(vm: VM, *, timeout: float) -> Engine:
    """Start `vm` and wait, at most `timeout` seconds, until QEMU answers.

    Raises `SpecError` and `UnsupportedError` before anything is started, `StartError` with
    QEMU's last words.
    """
    accelerator = choose(vm.accel)
    vm = attrs.evolve(vm, accel=accelerator.name)
    whole = plan(vm)
    capabilities = probe(vm.binary)
    capabilities.check(whole.options)
    engine = Engine(vm, whole, accelerator, capabilities)
    try:
        _launch(engine, whole, timeout)
        return engine
    except BaseException:
        engine.close()
        raise


def _launch(engine: Engine, whole: Plan, timeout: float) -> None:
    vm = engine.vm
    for need in whole.needs:
        engine.acquire(need)
    fds = [fd for held in engine.held.values() for fd in held.fds]
    words = [vm.binary, *argv(whole.options, engine.supplied), *vm.arguments]
    if whole.stopped:
        words.append("-S")
    engine.process = spawn(words, pass_fds=fds)
    engine.given()
    _connect(engine, timeout)
    if whole.stopped:
        assert engine.monitor is not None
        engine.monitor.run(_settle(engine, whole))


def _connect(engine: Engine, timeout: float) -> None:
    """Speak to QEMU, and to whoever will answer in the guest."""
    monitor = VMMonitor(
        engine.held[MONITOR].take_socket(), explain=engine.explain, peer=engine.vm.name
    )
    monitor.engine, engine.monitor = engine, monitor
    engine.watch()
    try:
        monitor.wait(monitor.ready, timeout, f"the start of {engine.vm.binary}")
    except ClosedError as error:
        assert engine.process is not None
        end = engine.process.wait(timeout)
        raise StartError(engine.vm.binary, str(end), engine.process.last_words) from error
    except TimedOut as late:
        assert engine.process is not None
        raise StartError(engine.vm.binary, str(late), engine.process.last_words) from late
