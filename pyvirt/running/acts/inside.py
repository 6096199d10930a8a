"""Acts inside a VM's guest, through whichever agent answers."""

from __future__ import annotations

from pyvirt.flows.steps import Act, outcome
from pyvirt.running.acts.base import BOOT, PATIENCE, Base
from pyvirt.running.acts.commands import Commands
from pyvirt.running.agents.serial_shell import SerialShell


class Inside(Commands, Base):
    """Commands, files and facts of the guest.

    Each waits until an agent answers, at most `boot` seconds where it takes that.
    """

    def login(
        self, user: str = "root", password: str | None = None, *, timeout: float = BOOT
    ) -> Act[None]:
        """Log in on the first captured serial port: the last resort, where no agent answers.

        It needs a getty, or a shell, there. `run`, `put`, `get` and the others then go
        through that shell, slowly and in small amounts; what it cannot do is refused. Until
        the guest is reset: then log in again.
        """
        shell = SerialShell(self.engine.first_console())
        yield from outcome(shell.login(user, password, timeout=timeout))
        old = [one for one in self.engine.carriers if isinstance(one, SerialShell)]
        for one in old:
            self.engine.carriers.remove(one)
            one.close()
        self.engine.carriers.append(shell)

    def freeze(self, *, timeout: float | None = PATIENCE) -> Act[int]:
        """Freeze the guest's file systems, for a consistent snapshot. How many."""
        carrier = yield from self.agent()
        return (yield from self.answered(carrier.fsfreeze(), timeout, "freezing"))

    def thaw(self, *, timeout: float | None = PATIENCE) -> Act[int]:
        """Let the guest write again. How many file systems were frozen."""
        carrier = yield from self.agent()
        return (yield from self.answered(carrier.fsthaw(), timeout, "thawing"))
