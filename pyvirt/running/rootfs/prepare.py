"""A description → a root file system that liblxc can mount.

A container with ids of its own gets its files as its own ids see them, and Linux maps them
where they are mounted (``idmap=container`` of lxc.container.conf(5)); liblxc cannot do that
to an overlay, whose layers therefore belong to the host's ids.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyvirt.errors import RootFSError, UnsupportedError
from pyvirt.fields import frozen
from pyvirt.rootfs import (
    Busybox,
    Debian,
    Directory,
    DockerArchive,
    IdMap,
    LoopImage,
    Made,
    OciImage,
    Overlay,
    Process,
    RootFS,
    Tarball,
)
from pyvirt.rootfs.layer import Owners
from pyvirt.running.guest import Cache
from pyvirt.running.rootfs import base, copying, debian, images
from pyvirt.running.rootfs.making import made
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
    bases: Path | None = None,
) -> Prepared:
    """Make *rootfs* in the directory *place*, which is the container's; or find it where it is.

    What many containers share lies below *bases*: unless given, ``.bases`` beside *place*,
    where the container's ids may look and `pyvirt cache` removes nothing. Whatever fails,
    nothing is left in *place*, nor is it when this process is killed meanwhile. Raises
    `RootFSError` for what *rootfs* cannot be made of, `DiskFullError`, `Cancelled` when
    *cancel* returned true, and what its sources raise.
    """
    watch = Watch(f"making the root file system {rootfs!r}", progress, cancel)
    if os.geteuid() != 0 and not isinstance(rootfs, Directory | LoopImage | Made):
        hint = "use a Directory that belongs to the container's ids"
        raise UnsupportedError("making a root file system", "a process without root", hint)
    if isinstance(rootfs, Made):
        return Prepared(rootfs.source, rootfs.options, rootfs.process, owned=False)
    if isinstance(rootfs, Busybox | Overlay):
        return _overlay(rootfs, place, idmap, Cache(bases or place.parent / ".bases"), watch)
    return _MAKERS[type(rootfs)](rootfs, place, idmap, watch)


def _unpacked(
    rootfs: OciImage | DockerArchive | Tarball, place: Path, idmap: IdMap | None, watch: Watch
) -> Prepared:
    with made(place / "rootfs", watch) as root:
        process = images.unpack(rootfs, root, Owners(idmap), watch)
    return Prepared(f"dir:{root}", _mapped(idmap), process)


def _debian(rootfs: Debian, place: Path, idmap: IdMap | None, watch: Watch) -> Prepared:
    with made(place / "rootfs", watch) as root:
        debian.fill(rootfs, root, watch)
    return Prepared(f"dir:{root}", _mapped(idmap))


def _directory(rootfs: Directory, place: Path, idmap: IdMap | None, watch: Watch) -> Prepared:
    path = _existing(rootfs.path, Path.is_dir, "directory")
    if rootfs.copy:
        return _copied(path, place, idmap, watch)
    return Prepared(f"dir:{path}", _mapped(idmap), owned=False)


def _loop(rootfs: LoopImage, place: Path, idmap: IdMap | None, watch: Watch) -> Prepared:
    path = _existing(rootfs.path, Path.is_file, "file")
    if idmap is not None:
        hint = "unpack it, or leave out the id map"
        raise UnsupportedError("a loop-mounted image for ids of its own", "liblxc", hint)
    readonly = rootfs.readonly or base.is_squashfs(path)
    return Prepared(f"loop:{path}", ("ro",) if readonly else (), owned=False)


def _overlay(
    rootfs: Busybox | Overlay, place: Path, idmap: IdMap | None, cache: Cache, watch: Watch
) -> Prepared:
    lower = rootfs.base if isinstance(rootfs, Overlay) else rootfs
    if isinstance(lower, Directory):
        path = _existing(lower.path, Path.is_dir, "directory")
        if not lower.copy and base.belongs(path, idmap):
            return over([path], place, idmap)
    tree, process = base.made_once(lower, cache, idmap, watch)
    return over([tree], place, idmap, process)


def over(
    lowers: list[Path], place: Path, idmap: IdMap | None, process: Process | None = None
) -> Prepared:
    """An overlay over *lowers*, the topmost first, with its changes in ``place/rootfs``.

    In a user namespace overlayfs keeps its notes in attributes of users.
    """
    for lower in lowers:
        if ":" in str(lower) or "," in str(lower):
            raise RootFSError(lower, "has a ':' or ',' in its path, which overlays cannot have")
    watch = Watch("making an overlay")
    with made(place / "rootfs", watch) as upper, made(place / "work", watch) as work:
        base.give(work, idmap)
        base.take_after(upper, lowers[0])
    source = ":".join(["overlay", *map(str, lowers), str(upper)])
    return Prepared(source, () if idmap is None else ("userxattr",), process)


def _copied(tree: Path, place: Path, idmap: IdMap | None, watch: Watch) -> Prepared:
    with made(place / "rootfs", watch) as root:
        copying.copy(tree, root, watch)
    return Prepared(f"dir:{root}", _mapped(idmap))


def _mapped(idmap: IdMap | None) -> tuple[str, ...]:
    return () if idmap is None else ("idmap=container",)


def _existing(path: Path, test: Callable[[Path], bool], kind: str) -> Path:
    path = Path(os.path.abspath(path))
    if not path.exists():
        raise RootFSError(path, "is not there")
    if not test(path):
        raise RootFSError(path, f"is no {kind}")
    return path


_MAKERS: dict[type[RootFS], Callable[[Any, Path, IdMap | None, Watch], Prepared]] = {
    Debian: _debian,
    Directory: _directory,
    DockerArchive: _unpacked,
    LoopImage: _loop,
    OciImage: _unpacked,
    Tarball: _unpacked,
}
