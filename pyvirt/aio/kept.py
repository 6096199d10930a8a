"""Kept containers, awaited: the blocking acts, each on a thread of its own.

Cancelling the task gives a long act up, and waits until it has left nothing behind.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from pyvirt.aio.container import RunningContainer, Starting
from pyvirt.aio.monitor import done
from pyvirt.container import Container
from pyvirt.running import kept as blocking
from pyvirt.running.kept.kept import PATIENCE
from pyvirt.running.kept.record import Snapshot, Tree
from pyvirt.running.lxc.exit import ContainerExit
from pyvirt.running.lxc.store import Store
from pyvirt.running.rootfs.watch import Cancel, Progress
from pyvirt.running.waiting.waits import aside

T = TypeVar("T")


class Kept:
    """`pyvirt.Kept`, awaited."""

    def __init__(self, name: str, store: Store) -> None:
        self._kept = blocking.Kept(name, store)

    @classmethod
    def of(cls, kept: blocking.Kept) -> Self:
        """The awaited face of a kept container."""
        return cls(kept.name, kept.store)

    @classmethod
    async def create(
        cls,
        container: Container,
        *,
        store: Store | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Self:
        """Make what *container* describes; see `pyvirt.Kept.create`."""
        act = partial(blocking.Kept.create, container, store=store, progress=progress)
        return cls.of(await _long(act, cancel))

    @classmethod
    async def find(cls, name: str, *, store: Store | None = None) -> Self:
        """The kept container called *name*; `SpecError` when there is none."""
        return cls.of(await _short(partial(blocking.Kept.find, name, store=store)))

    @classmethod
    async def all(cls, *, store: Store | None = None) -> list[Self]:
        """Every kept container, by name."""
        return [cls.of(each) for each in await _short(partial(blocking.Kept.all, store=store))]

    @classmethod
    async def import_(
        cls,
        path: str | Path,
        name: str | None = None,
        *,
        devices: bool = False,
        limit: int | str = "32G",
        store: Store | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Self:
        """Make the container that `export` wrote to *path*; see `pyvirt.Kept.import_`."""
        act = partial(
            blocking.Kept.import_, path, name, devices=devices, limit=limit, store=store,
            progress=progress,
        )  # fmt: skip
        return cls.of(await _long(act, cancel))

    @property
    def name(self) -> str:
        return self._kept.name

    @property
    def store(self) -> Store:
        return self._kept.store

    @property
    def place(self) -> Path:
        """The directory with what is written down about it."""
        return self._kept.place

    @property
    def container(self) -> Container:
        """Its description."""
        return self._kept.container

    @property
    def tree(self) -> Tree:
        """What its root file system is made of."""
        return self._kept.tree

    @property
    def state(self) -> str:
        """In liblxc's words: "running", "frozen", ..., or "stopped"."""
        return self._kept.state

    async def running(self) -> RunningContainer | None:
        """It as it runs, to be closed by whoever asked; None when it does not."""
        found = await _short(self._kept.running)
        return None if found is None else RunningContainer.of(found)

    def start(
        self,
        *,
        timeout: float = PATIENCE,
        progress: Progress | None = None,
        detach: bool = False,
    ) -> Starting:
        """Start it: ``async with kept.start() as running``, or await it."""
        return Starting(
            partial(self._kept.start, timeout=timeout, progress=progress, detach=detach)
        )

    async def stop(self, *, timeout: float = PATIENCE) -> ContainerExit | None:
        """End it, if it runs: asked first, and killed after *timeout* seconds."""
        return await _short(partial(self._kept.stop, timeout=timeout))

    async def snapshot(
        self, name: str, *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> Snapshot:
        """Remember what it is now as *name*. Over an overlay only its changes are copied."""
        return await _long(partial(self._kept.snapshot, name, progress=progress), cancel)

    async def snapshots(self) -> list[Snapshot]:
        """Its snapshots, the oldest first."""
        return await _short(self._kept.snapshots)

    async def restore(
        self, name: str, *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> None:
        """Make it what it was at snapshot *name*, which stays; what it is now is lost."""
        await _long(partial(self._kept.restore, name, progress=progress), cancel)

    async def remove_snapshot(self, name: str) -> None:
        """Forget snapshot *name*."""
        await _short(partial(self._kept.remove_snapshot, name))

    async def clone(
        self,
        name: str,
        *,
        overlay: bool = False,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Kept:
        """A new kept container like this one; see `pyvirt.Kept.clone`."""
        act = partial(self._kept.clone, name, overlay=overlay, progress=progress)
        return Kept.of(await _long(act, cancel))

    async def clones(
        self,
        names: Iterable[str],
        *,
        overlay: bool = True,
        workers: int = 4,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> list[Kept]:
        """Several clones, *workers* at a time; all of them, or none when one fails."""
        act = partial(self._kept.clones, names, overlay=overlay, workers=workers, progress=progress)
        return [Kept.of(each) for each in await _long(act, cancel)]

    async def rename(self, name: str) -> Kept:
        """Call it *name* from now on; the kept container of that name."""
        return Kept.of(await _short(partial(self._kept.rename, name)))

    async def export(
        self,
        path: str | Path,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Path:
        """Write it to one ``.tar.zst``; see `pyvirt.Kept.export`."""
        return await _long(partial(self._kept.export, path, progress=progress), cancel)

    async def destroy(self) -> None:
        """Remove it with its snapshots. What others share with it stays for them."""
        await _short(self._kept.destroy)

    def __repr__(self) -> str:
        return repr(self._kept)

    def _repr_html_(self) -> str:
        return self._kept._repr_html_()


async def _short(act: Callable[[], T]) -> T:
    """What `act` returns; it is not given up once it has begun."""
    return await _long(lambda *, cancel: act(), None)


async def _long(act: Callable[..., T], cancel: Cancel | None) -> T:
    """What `act` returns, which is given up when the task is cancelled."""
    over = threading.Event()

    def cancelled() -> bool:
        return over.is_set() or (cancel is not None and cancel())

    work: Any = aside(partial(act, cancel=cancelled))
    try:
        await done(work)
    except asyncio.CancelledError:
        over.set()
        await done(work)
        raise
    result: T = work.result()
    return result
