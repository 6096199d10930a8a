"""Every act on a running VM, as a flow. The faces (`RunningVM`, `pyvirt.aio`) only drive them."""

from __future__ import annotations

from pyvirt.running.acts.devices import Devices
from pyvirt.running.acts.inside import Inside
from pyvirt.running.acts.power import Power
from pyvirt.running.acts.rings import Rings
from pyvirt.running.acts.waiting import Waiting


class Acts(Rings, Power, Devices, Waiting, Inside):
    """All of them."""
