"""What writes disk images, to be awaited: the names and signatures of `pyvirt.image`.

    await pyvirt.aio.image.convert("disk.qcow2", "disk.raw", "raw")
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from pyvirt.running.tools import begin
from pyvirt.running.tools.writing import Writing

P = ParamSpec("P")
T = TypeVar("T")


def awaited(write: Callable[P, Writing[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`write`, awaited. Cancelling the task cancels it, and ends when nothing of it is left."""

    @functools.wraps(write)
    async def act(*arguments: P.args, **options: P.kwargs) -> T:
        writing = write(*arguments, **options)
        result = asyncio.wrap_future(writing)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            writing.cancel()
            with suppress(Exception, asyncio.CancelledError):
                await asyncio.shield(result)
            raise

    return act


amend = awaited(begin.amend)
bitmap_add = awaited(begin.bitmap_add)
bitmap_clear = awaited(begin.bitmap_clear)
bitmap_disable = awaited(begin.bitmap_disable)
bitmap_enable = awaited(begin.bitmap_enable)
bitmap_merge = awaited(begin.bitmap_merge)
bitmap_remove = awaited(begin.bitmap_remove)
commit = awaited(begin.commit)
compact = awaited(begin.compact)
convert = awaited(begin.convert)
create = awaited(begin.create)
rebase = awaited(begin.rebase)
recover = awaited(begin.recover)
resize = awaited(begin.resize)
snapshot_apply = awaited(begin.snapshot_apply)
snapshot_create = awaited(begin.snapshot_create)
snapshot_delete = awaited(begin.snapshot_delete)
snapshot_list = awaited(begin.snapshot_list)

__all__ = begin.__all__
