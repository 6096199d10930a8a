"""What all device values share: the user's id and place, and the way out to any property."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At, Slot


@frozen(kw_only=True)
class Attached:
    """A device with a place.

    `id` names it, else it is numbered. `address` pins its place in the words of its bus
    (``{"bus": "pcie.0", "addr": "0x5"}``). `properties` are given to QEMU as they are and
    win over what the fields say.
    """

    id: str | None = field(default=None, validator=fields.optional(fields.name))
    address: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping))
    properties: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping))

    PREFIX: ClassVar[str] = "device"
    DRIVER: ClassVar[str] = ""
    BUS: ClassVar[str] = "pci"
    GROUP: ClassVar[str] = ""
    UNPLUGGABLE: ClassVar[bool] = True

    @property
    def prefix(self) -> str:
        """How generated names begin."""
        return self.PREFIX

    @property
    def driver(self) -> str:
        """QEMU's name of the device, on PCI where it has several."""
        return self.DRIVER

    @property
    def slot(self) -> Slot:
        """The kind of place it wants."""
        return Slot(
            self.BUS,
            group=self.GROUP,
            address=self.address,
            unpluggable=self.UNPLUGGABLE,
            driver=self.driver,
        )

    def options(self, at: At) -> Iterator[Option | Need]:
        """The options in the order in which QEMU wants them, and what they need."""
        raise NotImplementedError

    def device(self, driver: str, at: At, **given: Any) -> Option:
        """``-device driver`` at that place. Underlines in names become dashes."""
        properties = {name.replace("_", "-"): value for name, value in given.items()}
        return self.literal(driver, at, properties)

    def literal(self, driver: str, at: At, properties: Mapping[str, Any]) -> Option:
        """``-device driver`` at that place, with names as QEMU spells them."""
        return Option(
            "device",
            {
                "driver": driver,
                "id": at.name,
                **at.place,
                **present(properties),
                **self.properties,
            },
        )


def present(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The properties that were given: those that are not None."""
    return {name: value for name, value in properties.items() if value is not None}


def only_for(owner: str, models: tuple[str, ...], model: str, **given: Any) -> None:
    """Each given field belongs to one of `models`; raises `SpecError` when `model` is not."""
    if model in models:
        return
    for name, value in given.items():
        if value is not None:
            raise SpecError(name, f"belongs to {owner} {' and '.join(models)}, not {model}", value)


def unix_path(field_name: str, path: object) -> None:
    """A Unix socket's path must fit the kernel's address; raises `SpecError`."""
    if len(str(path).encode("utf-8", "surrogateescape")) > 107:
        raise SpecError(field_name, "must be at most 107 bytes for a Unix socket", str(path))
