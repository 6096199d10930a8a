"""The guest in which a point is measured."""

from __future__ import annotations

from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.fields import frozen
from pyvirt.machine import Machine


def _machine(instance: Any, attribute: Any, value: Any) -> None:
    Machine(value)


@frozen(kw_only=True)
class Place:
    """The `machine` type, number of vCPUs, memory in bytes and accelerator of a guest.

    Points that say the same share one booted guest. The type pc has a place for every
    device, IDE included.
    """

    machine: str = field(default="pc", validator=_machine)
    cpus: int = field(default=1, validator=fields.between(1, 1024))
    memory: int = field(default=768 << 20, converter=fields.to_size, validator=fields.positive)
    accel: str = field(default="auto", validator=fields.choice("auto", "kvm", "tcg"))

    def __str__(self) -> str:
        return f"{self.machine}, {self.cpus} vCPU, {fields.sized(self.memory)}, {self.accel}"
