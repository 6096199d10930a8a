"""Directories of the host, to and from an archive's stream."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from tarfile import TarInfo

from pyvirt.errors import ProtocolError, SpecError
from pyvirt.guest import tar

_PLAIN = {stat.S_IFREG: b"0", stat.S_IFLNK: b"2", stat.S_IFDIR: b"5"}


def pack(source: str) -> Iterator[bytes]:
    """The archive of directory `source`, in pieces. Symbolic links stay links.

    Owners do not travel; what is neither file, directory nor link is refused.
    """
    for directory, names, files in os.walk(source, onerror=_raise):
        names.sort()
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        for name in sorted({*names, *files}):
            path = os.path.join(directory, name)
            yield from _entry(path, os.path.relpath(path, source))
        names[:] = [name for name in names if name not in links]
    yield tar.END


def unpack(read: Callable[[int], bytes], target: str) -> None:
    """Write the archive that `read` gives below directory `target`, made if need be.

    The archive was written by a guest: no name leads out of `target`, links are made and
    never followed, and set-user-ID bits and devices are not made.
    """
    os.makedirs(target, exist_ok=True)
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        entries = tar.Entries(read)
        modes: list[tuple[str, TarInfo]] = []
        for info in entries:
            if not PurePosixPath(info.name).parts:
                continue  # the directory itself, "./"
            with _parent(root, info.name, entries) as (parent, name):
                _create(root, parent, name, info, entries)
            if info.isdir():
                modes.append((info.name, info))
        for _, info in reversed(modes):
            with _parent(root, info.name, entries) as (parent, name):
                _finish(parent, name, info)
    finally:
        os.close(root)


def _raise(error: OSError) -> None:
    raise error


def _entry(path: str, name: str) -> Iterator[bytes]:
    status = os.lstat(path)
    info = TarInfo(name)
    try:
        info.type = _PLAIN[stat.S_IFMT(status.st_mode)]
    except KeyError:
        raise SpecError("source", "holds what is no file, directory or link", path) from None
    info.mode, info.mtime = stat.S_IMODE(status.st_mode), max(0, int(status.st_mtime))
    if info.issym():
        info.linkname = os.readlink(path)
    if not info.isreg():
        yield tar.header(info)
        return
    with open(path, "rb") as file:
        info.size = os.fstat(file.fileno()).st_size
        yield tar.header(info)
        yield from _content(file.fileno(), info.size, path)
    yield tar.padding(info.size)


def _content(fd: int, size: int, path: str) -> Iterator[bytes]:
    """Exactly `size` bytes: the header has promised them."""
    while size:
        part = os.read(fd, min(size, tar.PIECE))
        if not part:
            raise SpecError("source", "holds a file that shrank while it was read", path)
        size -= len(part)
        yield part


@contextmanager
def _parent(root: int, path: str, entries: tar.Entries) -> Iterator[tuple[int, str]]:
    """The directory that holds the entry, reached without following a link, and its name."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
        reason = f"has an entry with the name {path!r}"
        raise ProtocolError("the guest's archive", reason, entries.offset)
    fd = os.dup(root)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd, parts[-1]
    finally:
        os.close(fd)


def _create(root: int, parent: int, name: str, info: TarInfo, entries: tar.Entries) -> None:
    if info.isdir():
        _make_directory(parent, name)
        return
    if not (info.isreg() or info.issym() or info.islnk()):
        reason = f"has a device or pipe at {info.name!r}, which are not copied"
        raise ProtocolError("the guest's archive", reason, entries.offset)
    _remove(parent, name)
    if info.issym():
        os.symlink(info.linkname, name, dir_fd=parent)
        return
    if info.islnk():
        with _parent(root, info.linkname, entries) as (other, base):
            os.link(base, name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
        for part in entries.content():
            file.write(part)
    _finish(parent, name, info)


def _make_directory(parent: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise


def _remove(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _finish(parent: int, name: str, info: TarInfo) -> None:
    """Mode and time; a directory gets them last, when nothing is written below it any more."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(name, flags, dir_fd=parent)
    try:
        os.fchmod(fd, info.mode & 0o1777)
        os.utime(fd, (info.mtime, info.mtime))
    finally:
        os.close(fd)
