"""What the guest reads on the name plates of its hardware (``dmidecode``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
from attrs import field

from pyvirt.fields import between, each, frozen, kind, optional, text, to_tuple
from pyvirt.qemu.option import Option


def _text() -> Any:
    return field(default=None, validator=optional(text), kw_only=True)


def _number() -> Any:
    return field(default=None, validator=optional(between(0, 0xFFFF)), kw_only=True)


@frozen
class _Plate:
    """The fields of one SMBIOS structure; what is None is left to QEMU."""

    type: ClassVar[int]

    def options(self) -> Iterator[Option]:
        given = {_word(name): value for name, value in attrs.asdict(self).items()}
        given = {name: value for name, value in given.items() if value is not None}
        if given:
            source = _SOURCES[self.type]
            yield Option("smbios", {"type": self.type, **given}, source=source)


@frozen
class BiosInfo(_Plate):
    """Type 0, the firmware. `release` is "major.minor"."""

    type = 0
    vendor: str | None = _text()
    version: str | None = _text()
    date: str | None = _text()
    release: str | None = _text()
    uefi: bool | None = field(default=None, validator=optional(kind(bool)), kw_only=True)


@frozen
class System(_Plate):
    """Type 1, the machine. Its UUID is the VM's."""

    type = 1
    manufacturer: str | None = _text()
    product: str | None = _text()
    version: str | None = _text()
    serial: str | None = _text()
    sku: str | None = _text()
    family: str | None = _text()


@frozen
class Board(_Plate):
    """Type 2, the main board."""

    type = 2
    manufacturer: str | None = _text()
    product: str | None = _text()
    version: str | None = _text()
    serial: str | None = _text()
    asset: str | None = _text()
    location: str | None = _text()


@frozen
class Chassis(_Plate):
    """Type 3, the case."""

    type = 3
    manufacturer: str | None = _text()
    version: str | None = _text()
    serial: str | None = _text()
    asset: str | None = _text()
    sku: str | None = _text()


@frozen
class Processor(_Plate):
    """Type 4, each socket. Speeds are in MHz."""

    type = 4
    sock_pfx: str | None = _text()
    manufacturer: str | None = _text()
    version: str | None = _text()
    serial: str | None = _text()
    asset: str | None = _text()
    part: str | None = _text()
    max_speed: int | None = _number()
    current_speed: int | None = _number()


@frozen
class MemoryModule(_Plate):
    """Type 17, each memory module. `speed` is in MT/s."""

    type = 17
    loc_pfx: str | None = _text()
    bank: str | None = _text()
    manufacturer: str | None = _text()
    serial: str | None = _text()
    asset: str | None = _text()
    part: str | None = _text()
    speed: int | None = _number()


@frozen(kw_only=True)
class Smbios:
    """All name plates. `strings` are the OEM strings of type 11."""

    bios: BiosInfo = field(factory=BiosInfo, validator=kind(BiosInfo))
    system: System = field(factory=System, validator=kind(System))
    board: Board = field(factory=Board, validator=kind(Board))
    chassis: Chassis = field(factory=Chassis, validator=kind(Chassis))
    processor: Processor = field(factory=Processor, validator=kind(Processor))
    strings: tuple[str, ...] = field(default=(), converter=to_tuple, validator=each(text))
    memory: MemoryModule = field(factory=MemoryModule, validator=kind(MemoryModule))

    def options(self) -> Iterator[Option]:
        """One option for each structure that has a field given."""
        for plate in (self.bios, self.system, self.board, self.chassis, self.processor):
            yield from plate.options()
        for string in self.strings:
            yield Option("smbios", {"type": 11, "value": string}, source="strings")
        yield from self.memory.options()


_SOURCES = {0: "bios", 1: "system", 2: "board", 3: "chassis", 4: "processor", 17: "memory"}


def _word(name: str) -> str:
    # QEMU writes these two with an underscore, all others with a hyphen.
    return name if name in ("sock_pfx", "loc_pfx") else name.replace("_", "-")
