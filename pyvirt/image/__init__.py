"""Disk images, read without QEMU: formats, extents, chains, checks.

Pure computing over a `Source`; what writes (`create`, `convert`, `resize`, ...) runs QEMU's
tools: `pyvirt.running.tools`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvirt.image.budget import Budget as Budget
    from pyvirt.image.detection import detect as detect
    from pyvirt.image.extents import Extent as Extent
    from pyvirt.image.extents import Extents as Extents
    from pyvirt.image.extents import Flag as Flag
    from pyvirt.image.filesystems import Volume as Volume
    from pyvirt.image.image import Image as Image
    from pyvirt.image.info import Info as Info
    from pyvirt.image.inside import Inside as Inside
    from pyvirt.image.inside import Part as Part
    from pyvirt.image.layer import Match as Match
    from pyvirt.image.layer import Reference as Reference
    from pyvirt.image.partitions import Flaw as Flaw
    from pyvirt.image.partitions import Partition as Partition
    from pyvirt.image.partitions import Table as Table
    from pyvirt.image.source import BytesSource as BytesSource
    from pyvirt.image.source import FileSource as FileSource
    from pyvirt.image.source import Source as Source
    from pyvirt.image.untrusted import Inspection as Inspection
    from pyvirt.image.untrusted import Reason as Reason
    from pyvirt.image.untrusted import Verdict as Verdict
    from pyvirt.image.untrusted import inspect_untrusted as inspect_untrusted
    from pyvirt.qemu_img.amend import KeySlot as KeySlot
    from pyvirt.qemu_img.amend import LuksAmend as LuksAmend
    from pyvirt.qemu_img.amend import Qcow2Amend as Qcow2Amend
    from pyvirt.qemu_img.calls import Copying as Copying
    from pyvirt.qemu_img.options import CreateOptions as CreateOptions
    from pyvirt.qemu_img.options import Encrypt as Encrypt
    from pyvirt.qemu_img.options import LuksOptions as LuksOptions
    from pyvirt.qemu_img.options import ParallelsOptions as ParallelsOptions
    from pyvirt.qemu_img.options import Qcow2Options as Qcow2Options
    from pyvirt.qemu_img.options import QcowOptions as QcowOptions
    from pyvirt.qemu_img.options import QedOptions as QedOptions
    from pyvirt.qemu_img.options import RawOptions as RawOptions
    from pyvirt.qemu_img.options import VdiOptions as VdiOptions
    from pyvirt.qemu_img.options import VhdxOptions as VhdxOptions
    from pyvirt.qemu_img.options import VmdkOptions as VmdkOptions
    from pyvirt.qemu_img.options import VpcOptions as VpcOptions
    from pyvirt.running.tools import Snapshot as Snapshot
    from pyvirt.running.tools import Writing as Writing
    from pyvirt.running.tools import Written as Written
    from pyvirt.running.tools import amend as amend
    from pyvirt.running.tools import begin as begin
    from pyvirt.running.tools import bitmap_add as bitmap_add
    from pyvirt.running.tools import bitmap_clear as bitmap_clear
    from pyvirt.running.tools import bitmap_disable as bitmap_disable
    from pyvirt.running.tools import bitmap_enable as bitmap_enable
    from pyvirt.running.tools import bitmap_merge as bitmap_merge
    from pyvirt.running.tools import bitmap_remove as bitmap_remove
    from pyvirt.running.tools import commit as commit
    from pyvirt.running.tools import compact as compact
    from pyvirt.running.tools import convert as convert
    from pyvirt.running.tools import create as create
    from pyvirt.running.tools import rebase as rebase
    from pyvirt.running.tools import recover as recover
    from pyvirt.running.tools import resize as resize
    from pyvirt.running.tools import snapshot_apply as snapshot_apply
    from pyvirt.running.tools import snapshot_create as snapshot_create
    from pyvirt.running.tools import snapshot_delete as snapshot_delete
    from pyvirt.running.tools import snapshot_list as snapshot_list

_HOMES = {
    "budget": "Budget",
    "detection": "detect",
    "extents": "Extent Extents Flag",
    "filesystems": "Volume",
    "image": "Image",
    "info": "Info",
    "inside": "Inside Part",
    "layer": "Match Reference",
    "partitions": "Flaw Partition Table",
    "source": "BytesSource FileSource Source",
    "untrusted": "Inspection Reason Verdict inspect_untrusted",
}
#: Writing has its homes on other floors.
_WRITES = {
    "pyvirt.qemu_img.amend": "KeySlot LuksAmend Qcow2Amend",
    "pyvirt.qemu_img.calls": "Copying",
    "pyvirt.qemu_img.options": "CreateOptions Encrypt LuksOptions ParallelsOptions Qcow2Options "
    "QcowOptions QedOptions RawOptions VdiOptions VhdxOptions VmdkOptions VpcOptions",
    "pyvirt.running.tools": "Snapshot Writing Written amend begin bitmap_add bitmap_clear "
    "bitmap_disable bitmap_enable bitmap_merge bitmap_remove commit compact convert create "
    "rebase recover resize snapshot_apply snapshot_create snapshot_delete snapshot_list",
}
_HOME = {
    name: home
    for homes in ({f"{__name__}.{home}": names for home, names in _HOMES.items()}, _WRITES)
    for home, names in homes.items()
    for name in names.split()
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
