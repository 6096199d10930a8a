"""A description → a root file system that liblxc can mount."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pyvirt.fields import frozen
from pyvirt.rootfs import Busybox, IdMap, Process, RootFS
from pyvirt.running.keeper import forget, keep
from pyvirt.running.rootfs import base
from pyvirt.running.rootfs.watch import Cancel, Progress, Watch


@frozen
class Prepared:
    """A root file system that is there.

    `source` is the value of ``lxc.rootfs.path``, `options` are those of
    ``lxc.rootfs.options``; `process` is what the image wants to run; an `owned` one is
    removed with the container.
    """

    source: str
    options: tuple[str, ...] = ()
    process: Process | None = None
    owned: bool = True


def prepare(
    rootfs: RootFS,
    place: Path,
    *,
    idmap: IdMap | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Prepared:
    """Make *rootfs* in the directory *place*, which is the container's; or find it where it is.

    What is made belongs to the ids of the container: with *idmap*, those that they are on the
    host. Whatever fails, nothing is left in *place*, nor is it when this process is killed
    meanwhile.
    """
    watch = Watch(f"making the root file system {rootfs!r}", progress, cancel)
    return _MAKERS[type(rootfs)](rootfs, place, idmap, watch)


def _busybox(rootfs: RootFS, place: Path, idmap: IdMap | None, watch: Watch) -> Prepared:
    return _over(base.busybox(idmap, watch), place, idmap)


def _over(lower: Path, place: Path, idmap: IdMap | None) -> Prepared:
    """An overlay over *lower*, with its changes in ``place/rootfs``."""
    upper = place / "rootfs"
    keep(upper)
    try:
        upper.mkdir(mode=0o755)
        base.give(upper, idmap)
    except BaseException:
        shutil.rmtree(upper, ignore_errors=True)
        raise
    finally:
        forget(upper)
    return Prepared(f"overlay:{lower}:{upper}")


_MAKERS: dict[type[RootFS], Callable[[RootFS, Path, IdMap | None, Watch], Prepared]] = {
    Busybox: _busybox,
}
