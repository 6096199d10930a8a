"""Trees that containers are overlays over: removed when no container is, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pyvirt.running.guest import Cache
from pyvirt.running.kept.record import Snapshot, Tree, read
from pyvirt.running.lxc.store import Store

#: Days after which a base that nobody needs is removed by itself.
DAYS = 30.0

#: Days (a minute) in which a container that is being started has not yet said what it is over.
_STARTING = 60 / 86400


def prune(store: Store, *, days: float = DAYS) -> list[Path]:
    """Remove the bases in *store* that no container, kept or running, and no snapshot is
    over, and that were not used for *days*; what was removed."""
    cache = Cache(store.root / ".bases")
    needed = {Path(path).parent for path in _lowers(store)}
    return cache.prune(max(days, _STARTING), keep=needed)


def _lowers(store: Store) -> Iterator[str]:
    """The layers of all containers."""
    for name in store.names():
        with suppress(FileNotFoundError):
            for line in (store.place(name) / "config").read_text().splitlines():
                key, _, value = line.partition(" = ")
                if key == "lxc.rootfs.path":
                    yield from value.split(":")[1:]
    kept = store.root / ".kept"
    for path in kept.glob("*/tree.json"):
        with suppress(FileNotFoundError):
            yield from read(path, Tree).lowers
    for path in kept.glob("*/snapshots/*.json"):
        with suppress(FileNotFoundError):
            yield from read(path, Snapshot).tree.lowers
