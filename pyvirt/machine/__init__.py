"""The machine itself: board, processors, memory, firmware."""

from __future__ import annotations

from pyvirt.machine.actions import Actions
from pyvirt.machine.cpu import CPU, IOThread
from pyvirt.machine.firmware import OVMF, Bios, QBoot, Rom, SeaBIOS
from pyvirt.machine.machine import RTC, Machine
from pyvirt.machine.memory import DIMM, NVDIMM, Memory, VirtioMem, VirtioPmem
from pyvirt.machine.numa import Cache, Locality, NumaNode
from pyvirt.machine.smbios import BiosInfo, Board, Chassis, MemoryModule, Processor, Smbios, System

__all__ = [
    "CPU",
    "DIMM",
    "NVDIMM",
    "OVMF",
    "RTC",
    "Actions",
    "Bios",
    "BiosInfo",
    "Board",
    "Cache",
    "Chassis",
    "IOThread",
    "Locality",
    "Machine",
    "Memory",
    "MemoryModule",
    "NumaNode",
    "Processor",
    "QBoot",
    "Rom",
    "SeaBIOS",
    "Smbios",
    "System",
    "VirtioMem",
    "VirtioPmem",
]
