"""Devices as values: everything a machine has beside its disks and network cards.

A module is read when one of its names is first used: all of them take long to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# fmt: off
_MODULES = {
    "backend":
        "Backend Captured Chardev File HostParallel HostSerial Null Pipe Piped Pty "
        "RingBuffer SpiceChannel SpicePort Stdio Tcp Udp Unix VdAgent",
    "balloon": "Balloon",
    "character": "DebugConsole Parallel Serial VirtioConsole VirtioSerial VirtioSerialPort",
    "display": "Display Spice Vnc",
    "filesystem": "Plan9 VirtioFs",
    "fwcfg": "FwCfg",
    "input": "VirtioInputHost VirtioKeyboard VirtioMouse VirtioTablet",
    "ivshmem": "Ivshmem IvshmemDoorbell",
    "platform": "Pvpanic Vmgenid",
    "rng": "Rng",
    "seed": "Seed",
    "sound": "Ac97 Audio Es1370 Hda Sb16 UsbAudio VirtioSound",
    "tpm": "HostTpm Tpm",
    "usb":
        "SmartCardReader UsbHost UsbHub UsbKeyboard UsbMouse UsbMtp UsbRedir UsbTablet "
        "UsbWacomTablet",
    "usb_controllers": "Ehci Ich9Usb Ohci Uhci Xhci",
    "vfio": "VfioPci",
    "video": "AtiVga BochsDisplay CirrusVga Qxl Ramfb StdVga VirtioGpu VmwareSvga card",
    "vsock": "Vsock",
    "watchdog": "Watchdog",
}
# fmt: on

_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
