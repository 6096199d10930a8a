"""Own real virtual machines from Python: describe them, start them, talk to them, look inside.

    from pyvirt import VM, Disk, Nic

    with VM(memory="512M", cpus=2, nics=[Nic()]).start() as running:
        print(running.run("uname -r").stdout)

Importing this starts nothing and opens nothing; a name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvirt import aio as aio
    from pyvirt import bench as bench
    from pyvirt import container as container
    from pyvirt import devices as devices
    from pyvirt import disk as disk
    from pyvirt import errors as errors
    from pyvirt import image as image
    from pyvirt import machine as machine
    from pyvirt import nic as nic
    from pyvirt import virtio as virtio
    from pyvirt.boot import Firmware as Firmware
    from pyvirt.boot import Kernel as Kernel
    from pyvirt.catalogue import Catalogue as Catalogue
    from pyvirt.container import Container as Container
    from pyvirt.device import Device as Device
    from pyvirt.disk import CDROM as CDROM
    from pyvirt.disk import Disk as Disk
    from pyvirt.disk import Floppy as Floppy
    from pyvirt.disk import Throttle as Throttle
    from pyvirt.errors import AddressError as AddressError
    from pyvirt.errors import ClosedError as ClosedError
    from pyvirt.errors import CommandError as CommandError
    from pyvirt.errors import ContainerError as ContainerError
    from pyvirt.errors import GuestError as GuestError
    from pyvirt.errors import ImageError as ImageError
    from pyvirt.errors import ProtocolError as ProtocolError
    from pyvirt.errors import PyvirtError as PyvirtError
    from pyvirt.errors import RingError as RingError
    from pyvirt.errors import RunError as RunError
    from pyvirt.errors import RunTimedOut as RunTimedOut
    from pyvirt.errors import SpecError as SpecError
    from pyvirt.errors import StartError as StartError
    from pyvirt.errors import TimedOut as TimedOut
    from pyvirt.errors import UnplugError as UnplugError
    from pyvirt.errors import UnsupportedError as UnsupportedError
    from pyvirt.guest import Guest as Guest
    from pyvirt.guest.result import Result as Result
    from pyvirt.image import Image as Image
    from pyvirt.image import inspect_untrusted as inspect_untrusted
    from pyvirt.machine import CPU as CPU
    from pyvirt.machine import OVMF as OVMF
    from pyvirt.machine import IOThread as IOThread
    from pyvirt.machine import Machine as Machine
    from pyvirt.machine import Memory as Memory
    from pyvirt.nic import Nic as Nic
    from pyvirt.nic import Tap as Tap
    from pyvirt.nic import User as User
    from pyvirt.running.host.probe import probe as probe
    from pyvirt.running.kept import Kept as Kept
    from pyvirt.running.lxc.container import RunningContainer as RunningContainer
    from pyvirt.running.lxc.store import Store as Store
    from pyvirt.running.rings.findable import findable as findable
    from pyvirt.running.vm import RunningVM as RunningVM
    from pyvirt.running.wire.monitor import Monitor as Monitor
    from pyvirt.virtio import Ring as Ring
    from pyvirt.virtio import RingBuilder as RingBuilder
    from pyvirt.virtio import Trace as Trace
    from pyvirt.vm import VM as VM

__version__ = "0.1.0"

_HOMES = {
    "boot": "Firmware Kernel",
    "catalogue": "Catalogue",
    "container": "Container",
    "device": "Device",
    "disk": "CDROM Disk Floppy Throttle",
    "errors": "AddressError ClosedError CommandError ContainerError GuestError ImageError "
    "ProtocolError PyvirtError RingError RunError RunTimedOut SpecError StartError TimedOut "
    "UnplugError UnsupportedError",
    "guest": "Guest",
    "guest.result": "Result",
    "image": "Image inspect_untrusted",
    "machine": "CPU IOThread Machine Memory OVMF",
    "nic": "Nic Tap User",
    "running.kept": "Kept",
    "running.lxc.container": "RunningContainer",
    "running.lxc.store": "Store",
    "running.wire.monitor": "Monitor",
    "running.host.probe": "probe",
    "running.rings.findable": "findable",
    "running.vm": "RunningVM",
    "virtio": "Ring RingBuilder Trace",
    "vm": "VM",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

#: Parts of the library that are reached as attributes of it.
_MODULES = (
    "aio", "bench", "container", "devices", "disk", "errors", "image", "machine", "nic", "virtio",
)  # fmt: skip

__all__ = ["__version__", *sorted(_HOME), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
