"""A tree as the entries of a tar, with all that a root file system needs: owners, attributes."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from tarfile import TarInfo

from pyvirt.errors import RootFSError
from pyvirt.guest import tar
from pyvirt.rootfs import IdMap, IdRange
from pyvirt.running.rootfs.copying import attributes
from pyvirt.running.rootfs.watch import Watch

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
}  # fmt: skip


def tree_entries(root: int, below: str, idmap: IdMap | None, watch: Watch) -> Iterator[bytes]:
    """The tree at the descriptor *root* as entries below the name *below*.

    With *idmap*, owners are the host's ids of those that are written. Sockets are left out.
    """
    yield from _Pack(idmap and _reversed(idmap), watch).folder(root, below)


def _reversed(idmap: IdMap) -> IdMap:
    def swap(ranges: tuple[IdRange, ...]) -> list[IdRange]:
        return [IdRange(each.outside, each.inside, each.count) for each in ranges]

    return IdMap(swap(idmap.uids), swap(idmap.gids))


class _Pack:
    """One archive: what it has met under several names already."""

    def __init__(self, ids: IdMap | None, watch: Watch) -> None:
        self._ids, self._watch = ids, watch
        self._met: dict[tuple[int, int], str] = {}
        self._count = 0

    def folder(self, fd: int, path: str) -> Iterator[bytes]:
        yield self._header(os.fstat(fd), path, fd)
        for name in sorted(os.listdir(fd)):
            self._count += 1
            if self._count % 64 == 0:
                self._watch.tell(f"{self._watch.what} ({self._count} files)")
            self._watch.go_on()
            yield from self._one(fd, name, f"{path}/{name}")

    def _one(self, folder: int, name: str, path: str) -> Iterator[bytes]:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
            fd = os.open(name, _READ, dir_fd=folder)
            try:
                opened = os.fstat(fd)
                if stat.S_ISDIR(opened.st_mode):
                    yield from self.folder(fd, path)
                else:
                    yield from self._file(fd, opened, path)
            finally:
                os.close(fd)
        elif not stat.S_ISSOCK(status.st_mode):
            target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else ""
            yield self._header(status, path, f"/proc/self/fd/{folder}/{name}", target)

    def _file(self, fd: int, status: os.stat_result, path: str) -> Iterator[bytes]:
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._met:
            info = TarInfo(path)
            info.type, info.linkname = tarfile.LNKTYPE, self._met[key]
            yield _encoded(info)
            return
        self._met[key] = path
        yield self._header(status, path, fd)
        left = status.st_size
        while left:
            self._watch.go_on()
            piece = os.read(fd, min(left, tar.PIECE))
            if not piece:
                raise RootFSError(path, "shrank while it was read")
            left -= len(piece)
            yield piece
        yield tar.padding(status.st_size)

    def _header(
        self, status: os.stat_result, path: str, place: int | str, target: str = ""
    ) -> bytes:
        info = TarInfo(path)
        info.type = _KINDS[stat.S_IFMT(status.st_mode)]
        info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
        info.uid, info.gid = self._owner(status, path)
        info.size = status.st_size if info.isreg() else 0
        info.linkname = target
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        info.pax_headers = {
            f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape")
            for key, value in attributes(place).items()
        }
        return _encoded(info)

    def _owner(self, status: os.stat_result, path: str) -> tuple[int, int]:
        if self._ids is None:
            return status.st_uid, status.st_gid
        uid, gid = self._ids.uid(status.st_uid), self._ids.gid(status.st_gid)
        if uid is None or gid is None:
            found = f"{status.st_uid}:{status.st_gid}"
            raise RootFSError(path, f"belongs to {found} of the host, who is not in the id map")
        return uid, gid


def _encoded(info: TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
