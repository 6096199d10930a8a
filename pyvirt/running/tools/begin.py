"""Every write, begun and not waited for: each returns a `Writing`, which can be cancelled.

`pyvirt.image` waits for the same functions, and `pyvirt.aio.image` awaits them.
"""

from __future__ import annotations

from pyvirt.running.tools.change import amend, commit, rebase, recover, resize
from pyvirt.running.tools.inside import (
    bitmap_add,
    bitmap_clear,
    bitmap_disable,
    bitmap_enable,
    bitmap_merge,
    bitmap_remove,
    snapshot_apply,
    snapshot_create,
    snapshot_delete,
    snapshot_list,
)
from pyvirt.running.tools.new import compact, convert, create

__all__ = [
    "amend",
    "bitmap_add",
    "bitmap_clear",
    "bitmap_disable",
    "bitmap_enable",
    "bitmap_merge",
    "bitmap_remove",
    "commit",
    "compact",
    "convert",
    "create",
    "rebase",
    "recover",
    "resize",
    "snapshot_apply",
    "snapshot_create",
    "snapshot_delete",
    "snapshot_list",
]
