"""Acts that change the machine while it runs."""

from __future__ import annotations

from pyvirt.errors import SpecError
from pyvirt.flows import plug
from pyvirt.flows.steps import Act
from pyvirt.qemu.composition import Placed
from pyvirt.qemu.part import Part
from pyvirt.running.acts.base import PATIENCE, Base


class Devices(Base):
    """Plugging, unplugging, changing."""

    def plug(self, part: Part) -> Act[str]:
        """Plug a part into the running VM; its name. One that fails leaves nothing behind."""
        placed = self.engine.composition.plug(part, part.id or part.prefix)
        try:
            self.engine.check(placed)
            yield from plug.plug(placed)
        except BaseException:
            self.engine.composition.remove(placed, ports=True)
            raise
        return placed.name

    def unplug(self, name: str, *, timeout: float = PATIENCE) -> Act[None]:
        """Take the part `name` out, once the guest has let go of it.

        `UnplugError` when it does not within `timeout` seconds; the part then stays.
        """
        placed = self.placed(name)
        yield from plug.unplug(placed, timeout)
        self.engine.composition.remove(placed)

    def placed(self, name: str) -> Placed:
        """The part `name` with its place; `SpecError` when there is none of that name."""
        try:
            return self.engine.composition.placed[name]
        except KeyError:
            known = ", ".join(sorted(self.engine.composition.placed)) or "nothing"
            raise SpecError("name", f"must be one of {known}", name) from None
