"""Archives into trees. Whoever wrote the archive decides nothing but what is in the tree."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from tarfile import TarInfo
from typing import Self

from pyvirt.errors import RootFSError
from pyvirt.fields import frozen
from pyvirt.rootfs import layer
from pyvirt.rootfs.layer import Allowance, Entries, Owners
from pyvirt.running.rootfs.beneath import Astray, Beneath
from pyvirt.running.rootfs.stream import Reader

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: `stat` of each kind of node that is no file, directory or link.
_NODES = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}


@frozen
class Rules:
    """What archives may do: whose their files are, and whether device nodes are made."""

    owners: Owners = Owners()
    devices: bool = False


class Extraction:
    """The tree at `root` while archives are unpacked into it, one over the other."""

    def __init__(self, root: str | os.PathLike[str], rules: Rules, allowance: Allowance) -> None:
        self._rules, self._allowance = rules, allowance
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._tree = Beneath(self._root, self._missing)
        # Directory → the names in it that this layer wrote, or wrote below.
        self._written: dict[tuple[str, ...], set[str]] = {}
        self._times: dict[tuple[str, ...], int] = {}

    def archive(self, reader: Reader, source: str, name: str | None, layered: bool) -> None:
        """Unpack one archive; `layered` ones may hide what lies below them."""
        entries = Entries(reader.read, source, name)
        self.entries(iter(entries), entries, layered=layered)
        reader.drain()

    def entries(
        self, infos: Iterator[TarInfo], entries: Entries, *, layered: bool = False, below: str = ""
    ) -> None:
        """Unpack all that *infos* still gives; names begin with the directory *below*."""
        self._written, self._times = {}, {}
        for info in infos:
            self._check(self._allowance.enter(), entries)
            with _blamed(entries, info):
                if below:
                    _strip(info, below)
                self._entry(info, entries, layered)
        self._date()

    def _entry(self, info: TarInfo, entries: Entries, layered: bool) -> None:
        parts = layer.parts(info, info.name, entries.fault)
        if not parts:
            self._directory_itself(info, entries)
            return
        *above, name = parts
        folder, where = self._tree.directory(above)
        if layered and name == layer.OPAQUE:
            self._hide_all(folder, where)
        elif layered and (hidden := layer.hides(name)) is not None:
            self._hide(folder, where, hidden)
        else:
            self._create(folder, (*where, name), info, entries)

    def _directory_itself(self, info: TarInfo, entries: Entries) -> None:
        if not info.isdir():
            raise entries.fault(info, "stands for the root, and is no directory")
        self._finish(self._root, ".", info)
        self._times[()] = int(info.mtime)

    def _create(self, folder: int, where: tuple[str, ...], info: TarInfo, entries: Entries) -> None:
        name = where[-1]
        self._note(where)
        if info.isdir():
            self._directory(folder, where, info)
        elif info.islnk():
            self._link(folder, where, info, entries)
            return
        elif info.issym():
            self._fresh(folder, name)
            os.symlink(info.linkname, name, dir_fd=folder)
        elif info.isreg():
            self._file(folder, name, info, entries)
            return
        else:
            self._node(folder, name, info, entries)
        self._finish(folder, name, info)

    def _directory(self, folder: int, where: tuple[str, ...], info: TarInfo) -> None:
        name = where[-1]
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
                self._fresh(folder, name)
                os.mkdir(name, 0o700, dir_fd=folder)
        self._times[where] = int(info.mtime)

    def _link(self, folder: int, where: tuple[str, ...], info: TarInfo, entries: Entries) -> None:
        """A second name of a file in the tree. It may lie where a link in the path leads."""
        target = layer.parts(info, info.linkname, entries.fault)
        if not target:
            raise entries.fault(info, "is a hard link to the root")
        here = os.dup(folder)  # the next lookup ends the descriptor
        try:
            there, real = self._tree.directory(target[:-1])
            if (*real, target[-1]) == where:
                return
            if stat.S_ISDIR(os.lstat(target[-1], dir_fd=there).st_mode):
                raise entries.fault(info, f"is a hard link to the directory {info.linkname}")
            there = os.dup(there)
            try:
                self._fresh(here, where[-1])
                os.link(target[-1], where[-1], src_dir_fd=there, dst_dir_fd=here,
                        follow_symlinks=False)  # fmt: skip
            finally:
                os.close(there)
        except FileNotFoundError:
            reason = f"is a hard link to {info.linkname}, which is not there"
            raise entries.fault(info, reason) from None
        finally:
            os.close(here)

    def _file(self, folder: int, name: str, info: TarInfo, entries: Entries) -> None:
        self._check(self._allowance.take(info.size), entries)
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=folder)
        except FileExistsError:
            self._fresh(folder, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=folder)
        with open(fd, "wb", buffering=0) as file:
            for piece in entries.content():
                _write(file.fileno(), piece)
            self._own(file.fileno(), info)
            os.utime(file.fileno(), (info.mtime, info.mtime))

    def _own(self, fd: int, info: TarInfo) -> None:
        os.fchown(fd, *self._rules.owners.of(info.uid, info.gid))
        for key, value in layer.xattrs(info).items():
            os.setxattr(fd, key, value)
        os.fchmod(fd, info.mode & 0o7777)

    def _node(self, folder: int, name: str, info: TarInfo, entries: Entries) -> None:
        kind = _NODES.get(info.type)
        if kind is None:
            raise entries.fault(info, f"is of the unknown kind {info.type!r}")
        if kind != stat.S_IFIFO and not self._rules.devices:
            raise entries.fault(info, "is a device node; set devices if it shall be made")
        self._fresh(folder, name)
        device = os.makedev(info.devmajor, info.devminor) if kind != stat.S_IFIFO else 0
        os.mknod(name, kind | 0o600, device, dir_fd=folder)

    def _finish(self, folder: int, name: str, info: TarInfo) -> None:
        """Owner, attributes and mode; the owner first, for a change of it clears set-user-ID."""
        owner = self._rules.owners.of(info.uid, info.gid)
        os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
        for key, value in layer.xattrs(info).items():
            os.setxattr(f"/proc/self/fd/{folder}/{name}", key, value, follow_symlinks=False)
        if not info.issym():
            os.chmod(name, info.mode & 0o7777, dir_fd=folder)
        os.utime(name, (info.mtime, info.mtime), dir_fd=folder, follow_symlinks=False)

    def _missing(self, folder: int, name: str) -> None:
        """A directory that the archive has things in, but no entry for."""
        os.mkdir(name, 0o755, dir_fd=folder)
        os.chmod(name, 0o755, dir_fd=folder)
        os.chown(name, *self._rules.owners.of(0, 0), dir_fd=folder)

    def _note(self, where: tuple[str, ...]) -> None:
        for depth in range(len(where) - 1, -1, -1):
            names = self._written.setdefault(where[:depth], set())
            if where[depth] in names:
                return
            names.add(where[depth])

    def _hide(self, folder: int, where: tuple[str, ...], name: str) -> None:
        if name in ("", ".", ".."):
            raise Astray("is a whiteout of no name")
        if name not in self._written.get(where, ()):
            self._fresh(folder, name)

    def _hide_all(self, folder: int, where: tuple[str, ...]) -> None:
        """What the layers below have in a directory goes; what this one has, before or after."""
        inside = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        kept = self._written.get(where, set())
        try:
            for name in os.listdir(inside):
                if name in kept:
                    self._hide_below(inside, (*where, name))
                else:
                    self._fresh(inside, name)
        finally:
            os.close(inside)

    def _hide_below(self, folder: int, where: tuple[str, ...]) -> None:
        if not _is_directory(folder, where[-1]):
            return
        fd = os.open(where[-1], os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        try:
            self._hide_all(fd, where)
        finally:
            os.close(fd)

    def _fresh(self, folder: int, name: str) -> None:
        """Nothing is called `name` in `folder` any more."""
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=folder)
        self._tree.forget()

    def _date(self) -> None:
        """Directories get their times last, when nothing is made in them any more."""
        for where, time in self._times.items():
            try:
                folder, _ = self._tree.directory(where[:-1])
                os.utime(where[-1] if where else ".", (time, time), dir_fd=folder,
                         follow_symlinks=False)  # fmt: skip
            except (Astray, FileNotFoundError):
                continue  # hidden by the layer itself

    def _check(self, reason: str | None, entries: Entries) -> None:
        if reason is not None:
            raise RootFSError(entries.source, reason, layer=entries.layer)

    def close(self) -> None:
        self._tree.close()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _blamed(entries: Entries, info: TarInfo) -> Iterator[None]:
    """Whatever the file system refuses is the fault of the entry, unless it has no room."""
    try:
        yield
    except (Astray, LookupError) as error:
        raise entries.fault(info, str(error)) from None
    except (OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise entries.fault(info, f"cannot be written ({words})") from error


def _strip(info: TarInfo, below: str) -> None:
    if info.name.partition("/")[0] != below:
        raise Astray(f"lies beside {below}")
    info.name = info.name.partition("/")[2]
    if info.islnk():
        info.linkname = info.linkname.partition("/")[2]


def _is_directory(folder: int, name: str) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
