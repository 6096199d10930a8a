"""The asyncio face: the names and signatures of the blocking one, to be awaited.

    async with pyvirt.aio.start(VM()) as running:
        print((await running.run("uname -r")).stdout)
"""

from __future__ import annotations

from pyvirt.aio import image
from pyvirt.aio.container import RunningContainer, attach
from pyvirt.aio.kept import Kept
from pyvirt.aio.monitor import Commands, Events, Job, Monitor, done, result, run
from pyvirt.aio.start import start
from pyvirt.aio.vm import RunningVM, Starting

__all__ = [
    "Commands",
    "Events",
    "Job",
    "Kept",
    "Monitor",
    "RunningContainer",
    "RunningVM",
    "Starting",
    "attach",
    "done",
    "image",
    "result",
    "run",
    "start",
]
