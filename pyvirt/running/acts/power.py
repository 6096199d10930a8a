"""Life and death of a VM."""

from __future__ import annotations

from typing import Any

from pyvirt.errors import SpecError
from pyvirt.flows import power
from pyvirt.flows.steps import Act, Ended
from pyvirt.qmp.flow import Command
from pyvirt.running.acts.base import PATIENCE, Base
from pyvirt.running.exit import VMExit


class Power(Base):
    """Life and death."""

    def status(self) -> Act[str]:
        """QEMU's run state: "running", "paused", "shutdown", ... (``query-status``)."""
        answer = yield Command("query-status")
        return str(answer["status"])

    def pause(self) -> Act[None]:
        """Stop the vCPUs (``stop``)."""
        yield Command("stop")

    def resume(self) -> Act[None]:
        """Let the vCPUs go on (``cont``)."""
        yield Command("cont")

    def reset(self) -> Act[None]:
        """Reset the machine, as its button does (``system_reset``)."""
        yield Command("system_reset")

    def press_power(self) -> Act[None]:
        """Press the ACPI power button and do not wait (``system_powerdown``)."""
        yield Command("system_powerdown")

    def shutdown(
        self, *, timeout: float = PATIENCE, by: str = "auto", firm: bool = True
    ) -> Act[VMExit]:
        """Ask the guest to power off; how it ended.

        `by` is "agent", "acpi", or "auto": the agent when it has answered, else the power
        button. After `timeout` seconds QEMU is ended when `firm`, else `TimedOut` is raised
        and the guest goes on.
        """
        if by not in ("auto", "agent", "acpi"):
            raise SpecError("by", "must be one of auto, agent, acpi", by)
        carrier = self.engine.answering
        if by == "agent" and carrier is None:
            carrier = yield from self.agent(timeout)
        asking: Any = Command("system_powerdown")
        if by != "acpi" and carrier is not None:
            asking = carrier.shutdown()
        end: VMExit = yield from power.shutdown(asking, timeout, firm=firm)
        return end

    def stop(self) -> Act[VMExit]:
        """End QEMU now, without asking the guest; its images are flushed. How it ended."""
        end: VMExit = yield from power.stop()
        return end

    def wait(self, timeout: float | None = None) -> Act[VMExit]:
        """Wait until the VM has ended; how it did. `TimedOut` after `timeout` seconds."""
        end: VMExit = yield Ended(timeout)
        return end
