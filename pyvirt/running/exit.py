"""How a VM ended, told apart."""

from __future__ import annotations

import re

from attrs import frozen

from pyvirt.running.children.process import Exit

#: Reasons in QEMU's own words (ShutdownCause), and two of ours for a QEMU that never said.
CRASHED, KILLED = "crashed", "killed"

#: Lines of the serial port that an error holds.
LINES = 5

_PANIC = re.compile(r"Kernel panic - .*")


def tail(output: str) -> str:
    """The last lines of a serial port; the first of them is that of a panic, if there was one."""
    lines = [line for line in output.splitlines() if line.strip()]
    last = lines[-LINES:]
    panics = [line for line in lines if panic(line)]
    if panics and panics[-1] not in last:
        last[0] = panics[-1]
    return "\n".join(last)


def panic(output: str) -> str:
    """What a kernel said when it panicked, or ""."""
    found = _PANIC.findall(output)
    return found[-1] if found else ""


def telling(output: str) -> str:
    """The line that tells most: that of a panic, else the last."""
    return panic(output) or next(iter(output.splitlines()[-1:]), "")


@frozen
class VMExit:
    """How a VM ended.

    `reason` is the cause in QEMU's words ("guest-shutdown", "guest-reset", "guest-panic",
    "host-qmp-quit", "host-signal", ...), or "watchdog" (one whose action is to power off), or
    "crashed" (a signal or an exit code of its own), or "killed" (SIGKILL from outside). `log`
    is the end of what QEMU wrote, `serial` the end of what the guest wrote on its first
    serial port.
    """

    reason: str
    process: Exit
    log: str = ""
    serial: str = ""

    def __str__(self) -> str:
        words = [f"QEMU ended: {self.reason} ({self.process})"]
        if self.log:
            words.append(f"its last words: {self.log.splitlines()[-1]}")
        if self.serial:
            words.append(f"the guest's last line: {telling(self.serial)}")
        return "; ".join(words)


def judge(process: Exit, cause: str | None, log: str, serial: str) -> VMExit:
    """The end of a QEMU whose last SHUTDOWN event had `cause` (None: there was none)."""
    if process.signal == 9:
        reason = KILLED
    elif not process.ok or cause is None:
        reason = CRASHED
    else:
        reason = cause
    return VMExit(reason, process, log, serial)
