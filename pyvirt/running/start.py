"""Bring a described VM to life, or leave nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import attrs

from pyvirt.errors import ClosedError, StartError, TimedOut, UnsupportedError
from pyvirt.flows.steps import Act
from pyvirt.plan import MONITOR, Plan, plan
from pyvirt.qemu.option import Option
from pyvirt.qemu.render import argv
from pyvirt.qmp.flow import Command
from pyvirt.running.agents import connect
from pyvirt.running.children.process import spawn
from pyvirt.running.engine import Engine
from pyvirt.running.guest.apt import Progress
from pyvirt.running.host.accel import choose
from pyvirt.running.host.probe import probe
from pyvirt.running.wire.talk import VMMonitor
from pyvirt.vm import VM


def start(vm: VM, *, timeout: float, progress: Progress | None = None) -> Engine:
    """Start `vm` and wait, at most `timeout` seconds, until QEMU answers.

    `progress` is told what is downloaded or built before.

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
        for need in whole.needs:
            engine.acquire(need, progress)
        _launch(engine, whole, timeout)
        return engine
    except BaseException:
        engine.close()
        raise


def _launch(engine: Engine, whole: Plan, timeout: float) -> None:
    """Start QEMU; with its vCPUs stopped where something must happen before they run."""
    vm = engine.vm
    unsettled = bool(whole.adjustments or _pins(vm))
    words = [vm.binary, *argv(whole.options, engine.supplied), *vm.arguments]
    if unsettled or vm.paused:
        words.append("-S")
    engine.process = spawn(words, pass_fds=[fd for held in engine.held.values() for fd in held.fds])
    for held in engine.held.values():
        held.given()
    _connect(engine, whole, timeout)
    if unsettled:
        assert engine.monitor is not None
        engine.monitor.run(_settle(vm, whole))


def _pins(vm: VM) -> bool:
    return bool(vm.cpus.pins) or any(thread.pins for thread in vm.iothreads)


def _connect(engine: Engine, whole: Plan, timeout: float) -> None:
    """Speak to QEMU, and to whoever will answer in the guest."""
    process = engine.process
    assert process is not None
    sock = engine.held[MONITOR].take_socket()
    engine.monitor = VMMonitor(engine, sock, oob=True, explain=engine.explain, peer=engine.vm.name)
    engine.watch()
    _listen(engine)
    try:
        engine.monitor.await_ready(timeout)
    except ClosedError as error:
        end = process.wait(timeout)
        words = blame(process.last_words, whole.options, engine.supplied)
        raise StartError(engine.vm.binary, str(end), words) from error
    except TimedOut as late:
        raise StartError(engine.vm.binary, str(late), process.last_words) from late


def blame(words: str, options: Iterable[Option], supplied: Mapping[str, str]) -> str:
    """QEMU's last words, with the field that made an option in the place of its long text."""
    for option in options:
        text = " ".join(argv([option], supplied))
        if option.source and len(text) > 20:
            words = words.replace(text, option.source)
    return words


def _listen(engine: Engine) -> None:
    """The consoles whose output QEMU captures, and the agents that may answer."""
    for name, placed in engine.composition.placed.items():
        console = engine.console_of(placed)
        if console is not None:
            engine.consoles[name] = console
    for agent in engine.vm.channels:
        sock = engine.held[f"{agent}-fd"].take_socket()
        engine.carriers.append(connect(agent, sock, engine.explain_silence))


def _settle(vm: VM, whole: Plan) -> Act[None]:
    """What must be so before the guest's first instruction; then let it run."""
    for command in whole.adjustments:  # noqa: UP028 (a tuple takes no answers)
        yield command
    for cpu in (yield Command("query-cpus-fast")):
        _pin("cpus.pins", cpu["thread-id"], vm.cpus.pins.get(cpu["cpu-index"], ()))
    wanted = {thread.id: thread.pins for thread in vm.iothreads}
    for thread in (yield Command("query-iothreads")):
        _pin("iothreads.pins", thread["thread-id"], wanted.get(thread["id"], ()))
    if not vm.paused:
        yield Command("cont")


def _pin(field: str, thread: int, cpus: tuple[int, ...]) -> None:
    if not cpus:
        return
    try:
        os.sched_setaffinity(thread, cpus)
    except OSError as error:
        allowed = sorted(os.sched_getaffinity(0))
        hint = f"{field} may name only {', '.join(map(str, allowed))}"
        raise UnsupportedError(f"host CPU {cpus}", "this process", hint) from error
