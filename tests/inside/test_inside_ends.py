"""How guests end, and that everybody who waits learns of it at once."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, ClosedError, Nic, PyvirtError, RunningVM
from pyvirt.devices import StdVga

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

#: Seconds that each wait would last by itself.
PATIENCE = 200.0

#: Seconds within which a wait must have noticed, on however busy a machine: far fewer.
SOON = 20.0

CRASH = "sleep 0.3; echo c > /proc/sysrq-trigger"


class Waiting:
    """Something that waits on a thread of its own, and what comes of it."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._wait = wait
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._wait()
        except BaseException as error:
            self.error = error

    def ended(self, timeout: float) -> BaseException | None:
        """The error it ended with; fails when it still waits after `timeout` seconds."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"still waits after {timeout} s"
        return self.error


def waits(guest: RunningVM) -> dict[str, Callable[[], object]]:
    """Everything that one may wait for in a guest."""
    return {
        "run": lambda: guest.run("sleep 600", timeout=PATIENCE),
        "spawned": lambda: guest.spawn("sleep 600").wait(PATIENCE),
        "reading": lambda: guest.spawn("sleep 600").stdout.read(1),
        "get": lambda: guest.get("/dev/zero", io.BytesIO()),
        "port": lambda: guest.wait_for(port=4321, timeout=PATIENCE),
        "serial": lambda: guest.wait_for(serial="never written", timeout=PATIENCE),
        "text": lambda: guest.wait_for(text="never shown", timeout=PATIENCE),
        "events": lambda: guest.events("BALLOON_CHANGE").get(PATIENCE),
    }


def booted() -> RunningVM:
    running = VM(accel="tcg", memory="256M", video=StdVga()).start()
    running.wait_for(agent=True)
    running.run("echo the guest said this > /dev/ttyS0")
    return running


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "QEMU ended: killed"), (signal.SIGSEGV, "QEMU ended: crashed")],
)
def test_every_wait_ends_with_qemu_and_has_its_last_words(number: int, words: str) -> None:
    with booted() as running:
        waiting = {name: Waiting(wait) for name, wait in waits(running).items()}
        time.sleep(1)  # so that all of them wait
        os.kill(running.pid, number)
        errors = {name: one.ended(SOON) for name, one in waiting.items()}
        assert running.wait(SOON).process.signal == number
    for name, error in errors.items():
        assert isinstance(error, ClosedError), f"{name}: {error!r}"
        assert words in str(error), name
        assert "the guest said this" in str(error), name


@pytest.fixture(scope="module")
def guest() -> Iterator[RunningVM]:
    """A guest that is rebooted, panics and is powered off, in this order."""
    with VM(accel="tcg", memory="256M", nics=[Nic()]).start() as running:
        running.wait_for(agent=True)
        yield running


def test_a_guest_that_reboots_goes_on(guest: RunningVM) -> None:
    waiting = Waiting(lambda: guest.run("sleep 600", timeout=PATIENCE))
    with guest.events("RESET") as events:
        guest.spawn("sleep 0.3; reboot -f")
        assert events.get(SOON).data["reason"] == "guest-reset"
    error = waiting.ended(SOON)
    assert isinstance(error, ClosedError)
    assert "the guest was reset" in str(error)
    guest.wait_for(agent=True)
    assert guest.run("echo alive").stdout == "alive\n"
    assert guest.exit is None


def test_a_panic_that_nobody_hears_of_is_a_reset(guest: RunningVM) -> None:
    """Without pvpanic QEMU cannot know, but the guest resets at once, and its words are told."""
    waiting = Waiting(lambda: guest.run(CRASH + "; sleep 600", timeout=PATIENCE))
    error = waiting.ended(SOON)
    assert isinstance(error, ClosedError)
    assert str(error) == (
        "the agent in vm is closed: its kernel panicked; "
        "the guest's last line is 'Kernel panic - not syncing: sysrq triggered crash'"
    )
    guest.wait_for(agent=True)
    assert guest.run("echo alive").stdout == "alive\n"


def test_a_guest_that_powers_off_ends(guest: RunningVM) -> None:
    waiting = {name: Waiting(wait) for name, wait in waits(guest).items() if name != "text"}
    time.sleep(1)
    guest.spawn("poweroff")
    end = guest.wait(SOON)
    assert (end.reason, end.process.code) == ("guest-shutdown", 0)
    for name, one in waiting.items():
        error = one.ended(SOON)
        assert isinstance(error, PyvirtError), f"{name}: {error!r}"
        assert "guest-shutdown" in str(error), name


def test_what_is_asked_afterwards_says_how_it_ended(guest: RunningVM) -> None:
    for name, wait in waits(guest).items():
        with pytest.raises(PyvirtError) as caught:
            wait()
        assert "guest-shutdown" in str(caught.value), name
