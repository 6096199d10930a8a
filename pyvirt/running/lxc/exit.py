"""How a container ended."""

from __future__ import annotations

import signal

from attrs import frozen

from pyvirt.lxc.log import Ending
from pyvirt.running.children.process import signal_name

#: An end that was asked for, one of its own, and one by a signal from elsewhere.
STOPPED, EXITED, KILLED = "stopped", "exited", "killed"


@frozen
class ContainerExit:
    """How a container ended.

    `reason` is "stopped" (it was asked to, from here), "exited" (its first process ended)
    or "killed" (a signal ended that). `code` or `signal` are those of the first process; a
    command that a signal ended has code 128 and its number, as in a shell. `log` is the end
    of what liblxc said, `serial` the end of what the container wrote on its console.
    """

    reason: str
    code: int | None = None
    signal: int | None = None
    log: str = ""
    serial: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        how = f"exit code {self.code}"
        if self.signal is not None:
            how = f"killed by {signal_name(self.signal)}"
        words = [f"the container ended: {self.reason} ({how})"]
        if self.serial:
            words.append(f"its last line: {self.serial.splitlines()[-1]}")
        return "; ".join(words)


def judge(ending: Ending, asked: bool, log: str, serial: str) -> ContainerExit:
    """The end of a container that was `asked` to end, or was not."""
    if ending.signal == signal.SIGINT:  # reboot(2): an init that turned its machine off
        ending = Ending(code=0)
    reason = STOPPED if asked else KILLED if ending.signal is not None else EXITED
    return ContainerExit(reason, ending.code, ending.signal, log, serial)
