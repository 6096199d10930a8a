"""Every device that a QEMU has, to complete and to read about in an editor or notebook."""

from __future__ import annotations

import re
from inspect import Parameter, Signature
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from pyvirt.device import Device
from pyvirt.errors import UnsupportedError

if TYPE_CHECKING:
    from pyvirt.qemu.capabilities import Capabilities, DeviceInfo, PropertyInfo


class Catalogue:
    """The devices of one QEMU, by QEMU's names or as attributes with underlines.

    ``catalogue.virtio_rng_pci(max_bytes=1024)`` and ``catalogue["virtio-rng-pci"](...)`` are
    both a `Device` whose properties this QEMU takes.
    """

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._names = {_word(name): name for name in Device.names(capabilities)}

    def __getitem__(self, name: str) -> Model:
        return Model(self._capabilities.device(name), self._capabilities)

    def __getattr__(self, word: str) -> Model:
        if word.startswith("_"):
            raise AttributeError(word)
        try:
            return self[self._names.get(word, word.replace("_", "-"))]
        except UnsupportedError as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(word for word in self._names if word.isidentifier())]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._names.values())

    def __repr__(self) -> str:
        return f"<Catalogue of {len(self._names)} devices of {self._capabilities.name}>"


class Model:
    """One device model: call it with properties to describe a device."""

    def __init__(self, info: DeviceInfo, capabilities: Capabilities) -> None:
        self.info = info
        self._capabilities = capabilities
        self._names = {_word(name): name for name in info.properties}
        self.__signature__ = Signature(
            [Parameter("id", Parameter.KEYWORD_ONLY, default=None)]
            + [_parameter(word, info.properties[name]) for word, name in self._names.items()
               if word.isidentifier() and word != "id"]
        )  # fmt: skip
        self.__doc__ = "\n".join([info.description or info.name, "", *map(_line, _rows(info))])

    def __call__(self, *, id: str | None = None, **properties: Any) -> Device:
        """The device with these properties. Raises `SpecError` for one that does not fit."""
        given = {self._names.get(word, word): value for word, value in properties.items()}
        device = Device(self.info.name, given, id=id)
        device.check(self._capabilities)
        return device

    def __repr__(self) -> str:
        return f"<device {self.info.name}: {self.info.description or 'no description'}>"


def _word(name: str) -> str:
    """`name` as a Python word: "max-bytes" → max_bytes, "class" → class_."""
    word = re.sub(r"\W", "_", name)
    return f"{word}_" if iskeyword(word) else word


def _parameter(word: str, info: PropertyInfo) -> Parameter:
    default = info.default if info.default is not None else ...
    return Parameter(word, Parameter.KEYWORD_ONLY, default=default, annotation=info.type)


def _rows(info: DeviceInfo) -> list[PropertyInfo]:
    return sorted(info.properties.values(), key=lambda row: row.name)


def _line(row: PropertyInfo) -> str:
    default = "" if row.default is None else f" = {row.default}"
    description = f"  {row.description}" if row.description else ""
    return f"{row.name}: {row.type}{default}{description}"
