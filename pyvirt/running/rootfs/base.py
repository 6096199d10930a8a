"""Trees that are made once and only read by the containers over them: they lie in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs

from pyvirt.errors import RootFSError, SpecError
from pyvirt.rootfs import (
    Busybox,
    Debian,
    Directory,
    DockerArchive,
    IdMap,
    OciImage,
    Process,
    RootFS,
    Tarball,
)
from pyvirt.rootfs.busybox import entries
from pyvirt.rootfs.layer import Owners
from pyvirt.running.guest import Cache, programs
from pyvirt.running.guest.sources import Sources, identity
from pyvirt.running.rootfs import copying, debian, images
from pyvirt.running.rootfs.plant import plant
from pyvirt.running.rootfs.watch import Watch

_VERSION = 1  # Another tree than the last version's needs another number.
_SQUASHFS = b"hsqs"


def made_once(
    rootfs: RootFS, cache: Cache, idmap: IdMap | None, watch: Watch
) -> tuple[Path, Process | None]:
    """The tree of *rootfs*, and what its image wants to run; made where nobody has yet."""
    words = repr((_VERSION, rootfs, _identities(rootfs), idmap))
    key = hashlib.sha256(words.encode()).hexdigest()[:24]

    def make(folder: Path) -> None:
        folder.chmod(0o755)
        root = folder / "rootfs"
        root.mkdir(mode=0o755)
        root.chmod(0o755)
        process = _fill(rootfs, root, Owners(idmap, shifted=True), watch)
        found = None if process is None else attrs.asdict(process)
        (folder / "process.json").write_text(json.dumps(found))
        if idmap is not None and not isinstance(rootfs, OciImage | DockerArchive | Tarball):
            shift(root, idmap)

    tree = cache.tree(f"rootfs-{type(rootfs).__name__.lower()}-{key}", make)
    found = json.loads((tree / "process.json").read_text())
    process = None if found is None else Process(**{**found, "command": tuple(found["command"])})
    return tree / "rootfs", process


def _fill(rootfs: RootFS, root: Path, owners: Owners, watch: Watch) -> Process | None:
    if isinstance(rootfs, OciImage | DockerArchive | Tarball):
        give(root, owners.idmap)  # unless there is an entry for it
        return images.unpack(rootfs, root, owners, watch)
    _FILLERS[type(rootfs)](rootfs, root, watch)
    return None


def _fill_busybox(rootfs: RootFS, root: Path, watch: Watch) -> None:
    plant(entries(programs.busybox(Sources(), Cache(), watch.tell)), root)


def _fill_directory(rootfs: RootFS, root: Path, watch: Watch) -> None:
    assert isinstance(rootfs, Directory)
    copying.copy(rootfs.path, root, watch)


def _fill_debian(rootfs: RootFS, root: Path, watch: Watch) -> None:
    assert isinstance(rootfs, Debian)
    debian.fill(rootfs, root, watch)


_FILLERS: dict[type[RootFS], Callable[[RootFS, Path, Watch], None]] = {
    Busybox: _fill_busybox,
    Debian: _fill_debian,
    Directory: _fill_directory,
}


def _identities(rootfs: RootFS) -> object:
    """What tells whether the files that it is made of are the same as last time."""
    if isinstance(rootfs, Busybox):
        return identity(shutil.which("busybox") or "")
    if isinstance(rootfs, Directory):
        return _fingerprint(rootfs.path)
    path = getattr(rootfs, "path", None)
    if path is None:
        return None
    named = path / "index.json" if isinstance(rootfs, OciImage) else path
    return os.path.abspath(path), identity(named)


def _fingerprint(top: Path) -> str:
    """What changes when anything in a directory does; contents need not be read for that."""
    state = hashlib.sha256(os.fsencode(os.path.abspath(top)))
    for folder, directories, files in os.walk(top):
        directories.sort()
        for name in sorted((*directories, *files)):
            path = os.path.join(folder, name)
            found = os.lstat(path)
            state.update(repr((path, found.st_ino, found.st_size, found.st_ctime_ns)).encode())
    return state.hexdigest()


def belongs(path: Path, idmap: IdMap | None) -> bool:
    """Whether a tree can be read as it lies: its ids are the host's already, as they must be."""
    return idmap is None or path.stat().st_uid == idmap.uid(0)


def take_after(path: Path, other: Path) -> None:
    """Give *path* the owner and the mode of *other*."""
    status = other.stat()
    os.chown(path, status.st_uid, status.st_gid)
    path.chmod(status.st_mode & 0o7777)


def give(path: Path, idmap: IdMap | None) -> None:
    """Make *path* belong to the container's root."""
    if idmap is not None:
        uid, gid = idmap.uid(0), idmap.gid(0)
        if uid is None or gid is None:
            raise SpecError("idmap", "must give the container's root an id", idmap)
        os.chown(path, uid, gid, follow_symlinks=False)


def shift(root: Path, idmap: IdMap) -> None:
    """Make all below *root* belong to the host's ids of whom it belonged to.

    A change of owner takes set-user-ID bits and capabilities away: they are put back.
    """
    owners, met = Owners(idmap, shifted=True), set[tuple[int, int]]()
    _shift(root, owners)
    for folder, directories, files in os.walk(root):
        for path in (Path(folder, name) for name in (*directories, *files)):
            status = path.lstat()
            known = (status.st_dev, status.st_ino)
            if known not in met:
                _shift(path, owners)
            if status.st_nlink > 1:
                met.add(known)


def _shift(path: Path, owners: Owners) -> None:
    status = path.lstat()
    kept = copying.attributes(path)
    try:
        owner = owners.of(status.st_uid, status.st_gid)
    except LookupError as error:
        raise RootFSError(path, str(error)) from None
    os.chown(path, *owner, follow_symlinks=False)
    for key, value in kept.items():
        os.setxattr(path, key, value, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(status.st_mode & 0o7777)


def is_squashfs(path: Path) -> bool:
    """Whether the image is one that nothing can write to."""
    with path.open("rb") as file:
        return file.read(len(_SQUASHFS)) == _SQUASHFS
