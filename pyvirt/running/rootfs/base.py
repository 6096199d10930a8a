"""Trees that are made once and only read by the containers over them: they lie in the cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pyvirt.errors import SpecError
from pyvirt.rootfs import IdMap
from pyvirt.rootfs.busybox import entries
from pyvirt.running.guest import Cache, programs
from pyvirt.running.guest.sources import Sources
from pyvirt.running.rootfs.plant import plant
from pyvirt.running.rootfs.watch import Watch

_CODE = "1"  # Another tree than the last version's needs another number.


def busybox(idmap: IdMap | None, watch: Watch) -> Path:
    """The tree of the default container."""
    cache = Cache()
    program = programs.busybox(Sources(), cache, watch.tell)
    key = hashlib.sha256(program + repr(idmap).encode()).hexdigest()[:24]

    def make(root: Path) -> None:
        watch.tell("making the default root file system")
        plant(entries(program), root)
        root.chmod(0o755)
        if idmap is not None:
            shift(root, idmap)

    return cache.tree(f"rootfs-busybox-{_CODE}-{key}", make)


def give(path: Path, idmap: IdMap | None) -> None:
    """Make *path* belong to the container's root."""
    if idmap is not None:
        uid, gid = idmap.uid(0), idmap.gid(0)
        if uid is None or gid is None:
            raise SpecError("idmap", "must give the container's root an id", idmap)
        os.chown(path, uid, gid, follow_symlinks=False)


def shift(root: Path, idmap: IdMap) -> None:
    """Make all below *root*, which is root's, belong to the container's root."""
    give(root, idmap)
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            give(Path(folder, name), idmap)
