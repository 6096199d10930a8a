"""Plug a part into a running VM, and take it out: half of it never stays behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pyvirt.errors import (
    ClosedError,
    CommandError,
    PyvirtError,
    TimedOut,
    UnplugError,
    UnsupportedError,
)
from pyvirt.flows.steps import Acquire, Act, Handed, Release
from pyvirt.qemu.buses import CONTROLLERS
from pyvirt.qemu.composition import Placed
from pyvirt.qemu.need import GivenFds, Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.render import commands, removal
from pyvirt.qmp.flow import Command, Until

LETTING_GO = ("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR")

#: Seconds after which QEMU takes a request to unplug once more: a guest that was busy
#: booting does not hear the first.
AGAIN = 5.0


def plug(placed: Placed) -> Act[None]:
    """Acquire what the part needs and give QEMU its options, or undo all that was done."""
    done: list[Option] = []
    acquired: list[str] = []
    supplied: dict[str, str] = {}
    held = False
    try:
        for need in placed.needs:
            acquired.append(need.name)
            supplied |= yield from acquire(need)
        held = yield from hold((*placed.ports, *placed.options))
        for option in (*placed.ports, *placed.options):
            yield from commands([option], supplied)
            done.append(option)
        for command in placed.adjustments:  # noqa: UP028 (a tuple takes no answers)
            yield command
        if held:
            yield Command("cont")
    except ClosedError:
        raise
    except Exception as error:
        try:
            if held:
                yield Command("cont")
            yield from remove(done, acquired, timeout=AGAIN)
        except PyvirtError as second:
            error.add_note(f"Undoing it failed as well: {second}")
        raise


def hold(options: Iterable[Option]) -> Act[bool]:
    """Pause the guest where its driver may be faster than the disks that follow a controller.

    Whether it was paused: the caller resumes it.
    """
    if not any(scanned_once(option) for option in options):
        return False
    if (yield Command("query-status"))["status"] != "running":
        return False
    yield Command("stop")
    return True


def scanned_once(option: Option) -> bool:
    """Whether the option makes a controller of which Linux asks only once what is on it."""
    if option.kind != "device" or not isinstance(option.properties, Mapping):
        return False
    controller = CONTROLLERS.get(option.properties["driver"])
    return controller is not None and controller.scans_once


def acquire(need: Need) -> Act[dict[str, str]]:
    """Acquire `need` for a QEMU that runs: descriptors are handed over by name (``getfd``).

    Raises `UnsupportedError` for those that QEMU would only find if it had inherited them.
    """
    if isinstance(need, GivenFds) and need.inherited:
        hint = "describe it from the start, or let QEMU listen at a path"
        raise UnsupportedError("a socket that listens already", "a QEMU that runs", hint)
    held = yield Acquire(need)
    names = [f"{need.name}-{number}" for number in range(len(held.fds))]
    for name, fd in zip(names, held.fds, strict=True):
        yield Command("getfd", {"fdname": name}, (fd,))
    yield Handed(need.name)
    return {**held.values, **({need.name: ":".join(names)} if names else {})}


def unplug(placed: Placed, timeout: float) -> Act[None]:
    """Remove a part: its devices first, each once the guest let go, then what is behind them."""
    yield from remove(placed.options, [need.name for need in placed.needs], timeout)


def remove(options: Iterable[Option], needs: Iterable[str], timeout: float) -> Act[None]:
    """Undo `options` in reverse order and give `needs` back."""
    for option in reversed(list(options)):
        if option.kind == "device":
            yield from let_go(option.id, timeout)
        else:
            yield removal(option)
    for need in needs:
        yield Release(need)


def let_go(device: str, timeout: float) -> Act[None]:
    """Ask the guest to let go of `device` until it does, or `timeout` seconds are over."""
    event: Any = None
    left = timeout
    while event is None:
        try:
            yield Command("device_del", {"id": device})
        except CommandError as error:
            if error.kind == "DeviceNotFound":
                return  # It went between two requests.
            if "already in the process of unplug" not in error.desc:
                raise
        try:
            event = yield Until(LETTING_GO, {"device": device}, timeout=min(left, AGAIN))
        except TimedOut as late:
            left -= AGAIN
            if left <= 0:
                why = f"the guest did not let go within {timeout:g} s"
                raise UnplugError(device, why) from late
    if event.name != "DEVICE_DELETED":
        reason = event.data.get("msg", "the guest refused")
        raise UnplugError(device, reason)
