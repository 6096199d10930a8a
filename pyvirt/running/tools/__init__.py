"""Making and changing disk images with ``qemu-img``; each begins and returns a `Writing`.

What fails or is cancelled leaves the old file, or none. The format of every image is told to
QEMU and never guessed from what is in it; "qcow2" unless said. An image that a running QEMU
holds raises `HeldError`.

A `progress` is called from the writing thread with what is done, and how much of it (0 to 1).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pyvirt.running.tools import begin
from pyvirt.running.tools.described import Written
from pyvirt.running.tools.inside import Snapshot
from pyvirt.running.tools.writing import Progress, Writing

P = ParamSpec("P")
T = TypeVar("T")


def waiting(write: Callable[P, Writing[T]]) -> Callable[P, T]:
    """`write`, waited for. Ctrl-C cancels it, and is raised when nothing of it is left."""

    @functools.wraps(write)
    def act(*arguments: P.args, **options: P.kwargs) -> T:
        writing = write(*arguments, **options)
        try:
            return writing.result()
        except BaseException:
            writing.abandon()
            raise

    return act


amend = waiting(begin.amend)
bitmap_add = waiting(begin.bitmap_add)
bitmap_clear = waiting(begin.bitmap_clear)
bitmap_disable = waiting(begin.bitmap_disable)
bitmap_enable = waiting(begin.bitmap_enable)
bitmap_merge = waiting(begin.bitmap_merge)
bitmap_remove = waiting(begin.bitmap_remove)
commit = waiting(begin.commit)
compact = waiting(begin.compact)
convert = waiting(begin.convert)
create = waiting(begin.create)
rebase = waiting(begin.rebase)
recover = waiting(begin.recover)
resize = waiting(begin.resize)
snapshot_apply = waiting(begin.snapshot_apply)
snapshot_create = waiting(begin.snapshot_create)
snapshot_delete = waiting(begin.snapshot_delete)
snapshot_list = waiting(begin.snapshot_list)

__all__ = ["Progress", "Snapshot", "Writing", "Written", *begin.__all__]
