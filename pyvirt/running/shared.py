"""One guest for many uses: after each it is made as it was, or replaced when that fails."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from attrs import frozen

from pyvirt.errors import PyvirtError
from pyvirt.running.vm import RunningVM

if TYPE_CHECKING:
    from pyvirt.vm import VM

#: Seconds that each step of a reset may take.
PATIENCE = 30.0

# Programs have an exe, threads of the kernel have none. The shell itself does not count.
_PROGRAMS = """
for p in /proc/[0-9]*; do
    p=${p#/proc/}
    if [ $p != $$ ] && [ -e /proc/$p/exe ]; then echo $p; fi
done
"""

_CLEAN = """
for p in /proc/[0-9]*; do
    p=${p#/proc/}
    case " %s $$ " in *" $p "*) ;; *) [ -e /proc/$p/exe ] && kill -9 $p ;; esac
done 2>/dev/null
rm -rf /tmp/* /tmp/.[!.]* /dev/shm/*
"""

# What a user of a guest changes without meaning to: files (by size, rights and the time of the
# last change), directories, mounts, interfaces, addresses, routes, the name, a reboot.
_STATE = """
find / -xdev ! -type d -exec stat -c '%n %s %a %Z' {} + 2>/dev/null | sort
find / -xdev -type d 2>/dev/null | sort
cat /proc/mounts /proc/swaps /proc/sys/kernel/random/boot_id /proc/sys/kernel/hostname
ls /sys/block /sys/class/net
ip -o addr 2>/dev/null
ip route 2>/dev/null
"""


@frozen
class _First:
    """A guest as it was right after its boot."""

    parts: tuple[str, ...]
    programs: str
    state: str


class SharedGuest:
    """A guest of the description `vm`, which must bring pyvirt's agent and a shell.

    `ready` gives it, booted at the first call. `reset` makes it as it was: what was plugged is
    unplugged, a paused guest goes on, programs are ended, ``/tmp`` and ``/dev/shm`` emptied;
    then files, mounts and the network are looked at. When anything is not as it was right
    after the boot, the guest is ended, and the next `ready` boots another. What nobody looks
    at stays: loaded modules, settings below ``/proc/sys``, the clock, contents of disks.
    """

    def __init__(self, vm: VM, *, timeout: float) -> None:
        self.vm, self.timeout = vm, timeout
        self._running: RunningVM | None = None
        self._first: _First | None = None

    def ready(self) -> RunningVM:
        """The guest, as it was after its boot."""
        if self._running is None or self._first is None:
            self.discard()
            self._running = self.vm.start(timeout=self.timeout)
            self._running.wait_for(agent=True, timeout=self.timeout)
            self._first = _seen(self._running)
        return self._running

    def reset(self) -> bool:
        """Make the guest as it was; False when that failed, and the next is another one."""
        running, first = self._running, self._first
        if running is None or first is None:
            return False
        try:
            _clean(running, first)
            same = _seen(running) == first
        except (PyvirtError, OSError):
            same = False
        if not same:
            self.discard()
        return same

    def discard(self) -> None:
        """End the guest; the next `ready` boots another one."""
        running, self._running, self._first = self._running, None, None
        if running is not None:
            running.close()

    def __repr__(self) -> str:
        return f"<SharedGuest {self.vm.name}: {self._running or 'not booted'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


def _clean(running: RunningVM, first: _First) -> None:
    if running.status() != "running":
        running.resume()
    programs = " ".join(first.programs.split())
    running.run(["sh", "-c", _CLEAN % programs], timeout=PATIENCE)
    for name in running.parts:
        if name not in first.parts:
            running.unplug(name, timeout=PATIENCE)


def _seen(running: RunningVM) -> _First:
    """What is looked at."""
    programs = running.run(["sh", "-c", _PROGRAMS], timeout=PATIENCE).stdout
    state = running.run(["sh", "-c", _STATE], timeout=PATIENCE).stdout
    return _First(running.parts, str(programs), str(state))
