"""Copies of trees: owners, modes, times, attributes, hard links, device nodes and holes kept."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from pyvirt.errors import RootFSError
from pyvirt.running.rootfs.watch import Watch

_FICLONE = 0x40049409
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 16 << 20


def copy(source: Path | int, target: Path, watch: Watch, what: str = "copying") -> None:
    """Write what is below *source* below the directory *target*, and give that its attributes.

    What is mounted below *source* is not copied. Data are shared where the file system can.
    """
    old = os.open(source, _FOLDER) if isinstance(source, Path) else os.dup(source)
    new = os.open(target, _FOLDER)
    try:
        _Copy(os.fstat(old).st_dev, target, watch, what).folder(old, new)
    finally:
        os.close(old)
        os.close(new)


def attributes(path: str | Path | int) -> dict[str, bytes]:
    """The extended attributes of a file; of a link its own."""
    follow, found = isinstance(path, int), {}
    with suppress(OSError):  # a file system without any
        for key in os.listxattr(path, follow_symlinks=follow):
            found[key] = os.getxattr(path, key, follow_symlinks=follow)
    return found


class _Copy:
    """One copy: what it has met under several names already."""

    def __init__(self, device: int, target: Path, watch: Watch, what: str) -> None:
        self._device, self._target = device, target
        self._watch, self._what = watch, what
        self._met: dict[tuple[int, int], str] = {}
        self._count = 0

    def folder(self, old: int, new: int, path: str = "") -> None:
        for name in sorted(os.listdir(old)):
            self._count += 1
            if self._count % 64 == 0:
                self._watch.tell(f"{self._what} ({self._count} files)")
            self._watch.go_on()
            self._one(old, new, name, f"{path}/{name}")
        _give(os.fstat(old), attributes(old), new)

    def _one(self, old: int, new: int, name: str, path: str) -> None:
        status = os.stat(name, dir_fd=old, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._folder(old, new, name, path)
        elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in self._met:
            first = self._met[status.st_dev, status.st_ino]
            os.link(f"{self._target}{first}", name, dst_dir_fd=new, follow_symlinks=False)
        else:
            self._met[status.st_dev, status.st_ino] = path
            self._make(old, new, name, status)

    def _folder(self, old: int, new: int, name: str, path: str) -> None:
        os.mkdir(name, 0o700, dir_fd=new)
        inner, made = os.open(name, _FOLDER, dir_fd=old), os.open(name, _FOLDER, dir_fd=new)
        try:
            if os.fstat(inner).st_dev == self._device:
                self.folder(inner, made, path)
        finally:
            os.close(inner)
            os.close(made)

    def _make(self, old: int, new: int, name: str, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            self._file(old, new, name)
            return
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=old), name, dir_fd=new)
        elif not stat.S_ISSOCK(status.st_mode):  # who listens there is not copied
            os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=new)
        else:
            return
        place = f"/proc/self/fd/{new}/{name}"
        _give(status, attributes(f"/proc/self/fd/{old}/{name}"), place)

    def _file(self, old: int, new: int, name: str) -> None:
        source = os.open(name, _READ, dir_fd=old)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            target = os.open(name, flags, 0o600, dir_fd=new)
            try:
                self._data(source, target)
                _give(os.fstat(source), attributes(source), target)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _data(self, source: int, target: int) -> None:
        with suppress(OSError):
            fcntl.ioctl(target, _FICLONE, source)
            return
        size, start = os.fstat(source).st_size, 0
        os.ftruncate(target, size)
        while (piece := _next_data(source, start)) is not None:
            start, end = piece
            while start < end:
                self._watch.go_on()
                start += _copied(source, target, start, min(end - start, _PIECE))


def _next_data(fd: int, start: int) -> tuple[int, int] | None:
    """The first part from `start` on that is no hole."""
    try:
        begin = os.lseek(fd, start, os.SEEK_DATA)
    except OSError:
        return None
    return begin, os.lseek(fd, begin, os.SEEK_HOLE)


def _copied(source: int, target: int, start: int, size: int) -> int:
    try:
        done = os.copy_file_range(source, target, size, start, start)
    except OSError as error:
        if error.errno not in (18, 22, 95):  # EXDEV, EINVAL, EOPNOTSUPP: as file systems like
            raise
        done = os.pwrite(target, os.pread(source, size, start), start)
    if not done:
        raise RootFSError("the tree", "has a file that shrank while it was copied")
    return done


def _give(status: os.stat_result, xattrs: dict[str, bytes], target: int | str) -> None:
    """Owner first: a change of it takes capabilities and set-user-ID bits away."""
    follow = isinstance(target, int)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=follow)
    for key, value in xattrs.items():
        os.setxattr(target, key, value, follow_symlinks=follow)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(target, ns=times, follow_symlinks=follow)
