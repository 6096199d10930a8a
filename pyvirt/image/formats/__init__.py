"""One module for each image format; each has ``probe`` and ``open``."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from pyvirt.errors import SpecError
from pyvirt.image.layer import Format

#: Module of each format, by QEMU's name for it.
FORMATS = {
    "qcow2": "qcow2",
    "raw": "raw",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vpc": "vhd",
    "vhdx": "vhdx",
    "qed": "qed",
    "qcow": "qcow",
    "parallels": "parallels",
    "bochs": "bochs",
    "cloop": "cloop",
    "dmg": "dmg",
    "luks": "luks",
    "iso9660": "iso9660",
}


def format_module(name: str) -> Format:
    """The module that reads images of format `name`."""
    if name not in FORMATS:
        raise SpecError("format", f"must be one of {', '.join(sorted(FORMATS))}", name)
    return cast(Format, import_module(f"{__name__}.{FORMATS[name]}"))
