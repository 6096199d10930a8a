"""Disk images, read without QEMU: formats, extents, chains, checks.

Pure computing over a `Source`; acting with QEMU's tools is `pyvirt.running.tools`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvirt.image.budget import Budget as Budget
    from pyvirt.image.detect import detect as detect
    from pyvirt.image.extents import Extent as Extent
    from pyvirt.image.extents import Extents as Extents
    from pyvirt.image.extents import Flag as Flag
    from pyvirt.image.image import Image as Image
    from pyvirt.image.layer import Match as Match
    from pyvirt.image.layer import Reference as Reference
    from pyvirt.image.source import BytesSource as BytesSource
    from pyvirt.image.source import FileSource as FileSource
    from pyvirt.image.source import Source as Source

_HOMES = {
    "budget": "Budget",
    "detect": "detect",
    "extents": "Extent Extents Flag",
    "image": "Image",
    "layer": "Match Reference",
    "source": "BytesSource FileSource Source",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
