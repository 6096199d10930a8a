"""The board: its type, what is soldered to it, and its clock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from attrs import field

from pyvirt.errors import SpecError
from pyvirt.fields import between, choice, frozen, kind, optional, positive, to_size
from pyvirt.qemu.option import Option

_TYPE = re.compile(r"pc|q35|microvm|none|pc-i440fx-\d+\.\d+|pc-q35-\d+\.\d+")

# Spare ports of q35: 16 fill the two slots that the topology keeps for them.
_MOST_PORTS = 16


def _known_type(instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not _TYPE.fullmatch(value):
        reason = "must be pc, q35, microvm, none or a version such as pc-q35-7.2"
        raise SpecError(attribute.name, reason, value)


_switch = optional(kind(bool))


@frozen
class RTC:
    """The clock that keeps time: where it starts, and by what it runs.

    `base` is "utc", "localtime" or a moment (`datetime`, as the guest will read it).
    """

    base: str | datetime = "utc"
    clock: str = field(default="host", validator=choice("host", "rt", "vm"), kw_only=True)
    driftfix: str = field(default="none", validator=choice("none", "slew"), kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.base, datetime) and self.base not in ("utc", "localtime"):
            raise SpecError("base", "must be utc, localtime or a datetime", self.base)

    def options(self) -> Iterator[Option]:
        """The option for a clock that differs from QEMU's own choice."""
        if self == RTC():
            return
        properties = {"base": self.base, "clock": self.clock, "driftfix": self.driftfix}
        if isinstance(self.base, datetime):
            properties["base"] = self.base.strftime("%Y-%m-%dT%H:%M:%S")
        yield Option("rtc", properties, source="rtc")


@frozen
class Machine:
    """A machine type and its switches; None leaves a switch as QEMU has it for the type.

    `hotplug_ports` are q35 root ports kept free for PCI Express devices plugged later;
    `hotplug_bridge` is a bus for conventional ones. `properties` is the way out for any
    other property of the machine, in QEMU's words.
    """

    type: str = field(default="q35", validator=_known_type)
    acpi: bool | None = field(default=None, validator=_switch, kw_only=True)
    smm: bool | None = field(default=None, validator=_switch, kw_only=True)
    vmport: bool | None = field(default=None, validator=_switch, kw_only=True)
    hpet: bool | None = field(default=None, validator=_switch, kw_only=True)
    usb: bool | None = field(default=None, validator=_switch, kw_only=True)
    i8042: bool | None = field(default=None, validator=_switch, kw_only=True)
    graphics: bool | None = field(default=None, validator=_switch, kw_only=True)
    nvdimm: bool | None = field(default=None, validator=_switch, kw_only=True)
    hmat: bool | None = field(default=None, validator=_switch, kw_only=True)
    kernel_irqchip: str | None = field(
        default=None, validator=optional(choice("on", "off", "split")), kw_only=True
    )
    max_ram_below_4g: int | None = field(
        default=None, converter=to_size, validator=optional(positive), kw_only=True
    )
    pcie: bool = field(default=False, validator=kind(bool), kw_only=True)
    rtc: RTC = field(factory=RTC, validator=kind(RTC), kw_only=True)
    # Each of the first 8 ports costs SeaBIOS and Linux 5 to 8 ms of TCG, later ones 20 (CPU
    # seconds to the end of a 6.1 kernel's boot, medians of 8: none 1.370, 4 ports 1.392,
    # 8 ports 1.431, 16 ports 1.489, 32 ports 1.831).
    hotplug_ports: int = field(default=4, validator=between(0, _MOST_PORTS), kw_only=True)
    hotplug_bridge: bool = field(default=False, validator=kind(bool), kw_only=True)
    properties: Mapping[str, Any] = field(factory=dict, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.pcie and self.family != "microvm":
            raise SpecError("pcie", "is a switch of microvm; others have what they have", True)
        for name, families in _LACKS.items():
            if getattr(self, name) is not None and self.family in families:
                raise SpecError(name, f"is not there on {self.type}", getattr(self, name))

    @property
    def family(self) -> str:
        """pc, q35, microvm or none, whatever the version."""
        if self.type.startswith("pc-q35"):
            return "q35"
        return "pc" if self.type.startswith("pc-i440fx") else self.type

    @property
    def transports(self) -> int:
        """virtio-mmio transports of a microvm: a second IOAPIC comes with ACPI."""
        second = self.properties.get("ioapic2", self.acpi is not False)
        return 24 if second not in (False, "off") else 8

    def options(self) -> Iterator[Option]:
        """``-machine`` and what describes the board beside it."""
        yield Option("machine", {"type": self.type, **self._switches()}, source="type")
        if self.family == "microvm":
            # QEMU's transports speak virtio 0.9 unless told: no keyboards, sound or GPUs then.
            legacy = {"driver": "virtio-mmio", "property": "force-legacy", "value": False}
            yield Option("global", legacy, source="type")
        yield from self.rtc.options()

    def _switches(self) -> dict[str, Any]:
        chosen = {_word(name): getattr(self, name) for name in _SWITCHES}
        if self.pcie:
            chosen["pcie"] = True
        return {k: v for k, v in chosen.items() if v is not None} | dict(self.properties)


_SWITCHES = (
    "acpi", "smm", "vmport", "hpet", "usb", "i8042", "graphics", "nvdimm", "hmat",
    "kernel_irqchip", "max_ram_below_4g",
)  # fmt: skip

# Where QEMU knows no such property.
_LACKS = {
    "acpi": ("none",),
    "smm": ("none",),
    "vmport": ("microvm", "none"),
    "hpet": ("microvm", "none"),
    "i8042": ("microvm", "none"),
    "nvdimm": ("microvm", "none"),
    "hmat": ("none",),
    "max_ram_below_4g": ("microvm", "none"),
}


def _word(name: str) -> str:
    return name.replace("_", "-")
