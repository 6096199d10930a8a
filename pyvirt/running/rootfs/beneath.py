"""Directories of a tree in the making, reached as the tree's own root would reach them.

Symbolic links are followed here, one part of a path at a time and by descriptors, never by the
kernel: an absolute one begins at the root of the tree, and one that leads above that is an
error. Nobody else writes to the tree meanwhile.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from pyvirt.rootfs.layer import DEEPEST

_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS = 40  # as Linux: path_resolution(7)


class Astray(Exception):
    """A path leads nowhere, or where it must not; the message says how."""


class Beneath:
    """The tree at the descriptor `root`; `make(parent, name)` makes directories that lack."""

    def __init__(self, root: int, make: Callable[[int, str], None] | None = None) -> None:
        self.root = root
        self._make = make
        self._wanted: tuple[str, ...] | None = None
        self._found: tuple[int, tuple[str, ...]] | None = None

    def directory(self, parts: Sequence[str]) -> tuple[int, tuple[str, ...]]:
        """A descriptor of the directory, good until the next call, and where it really lies."""
        wanted = tuple(parts)
        if self._found is None or self._wanted != wanted:
            self.close()
            self._found = _Walk(self.root, wanted, self._make).end()
            self._wanted = wanted
        return self._found

    def forget(self) -> None:
        """Something was removed: paths may lead elsewhere now."""
        self._wanted = None

    def close(self) -> None:
        if self._found is not None:
            os.close(self._found[0])
            self._found = None


class _Walk:
    """One path on its way: descriptors from the root down, and what is still to be walked."""

    def __init__(
        self, root: int, parts: Sequence[str], make: Callable[[int, str], None] | None
    ) -> None:
        self._make, self._links = make, 0
        self._fds, self._names = [os.dup(root)], list[str]()
        # Each part with the link that it comes from, if it does.
        self._todo: list[tuple[str, str]] = [(part, "") for part in reversed(parts)]

    def end(self) -> tuple[int, tuple[str, ...]]:
        try:
            while self._todo:
                self._step(*self._todo.pop())
            return self._fds.pop(), tuple(self._names)
        finally:
            for fd in self._fds:
                os.close(fd)

    def _step(self, part: str, link: str) -> None:
        if part == "..":
            self._up(link)
            return
        if len(self._names) >= DEEPEST:
            raise Astray(f"lies deeper than {DEEPEST} directories")
        try:
            self._fds.append(self._open(part, link))
            self._names.append(part)
        except NotADirectoryError:
            self._follow(part)

    def _open(self, part: str, link: str) -> int:
        try:
            return os.open(part, _FLAGS, dir_fd=self._fds[-1])
        except FileNotFoundError:
            if link:
                reason = f"lies below the link {link}, which leads to nothing in the root"
                raise Astray(reason) from None
            if self._make is None:
                raise Astray("is not there") from None
        self._make(self._fds[-1], part)
        return os.open(part, _FLAGS, dir_fd=self._fds[-1])

    def _up(self, link: str) -> None:
        if not self._names:
            raise Astray(f"lies below the link {link}, which leads out of the root")
        self._names.pop()
        os.close(self._fds.pop())

    def _follow(self, part: str) -> None:
        try:
            target = os.readlink(part, dir_fd=self._fds[-1])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise Astray(f"lies below {'/'.join([*self._names, part])}, a file") from None
        self._links += 1
        link = f"{'/'.join([*self._names, part])} -> {target}"
        if self._links > _LINKS:
            raise Astray(f"lies below the link {link}, which leads to itself")
        if target.startswith("/"):
            while self._names:
                self._up(link)
        self._todo += [(one, link) for one in reversed(_parts(target))]


def exists(root: int, path: str) -> bool:
    """Whether the tree has something at `path`, links followed as they lead inside it."""
    tree = Beneath(root)
    parts = _parts(path)
    try:
        for _ in range(_LINKS):
            folder, where = tree.directory(parts[:-1])
            os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            target = _link(folder, parts[-1])
            if target is None:
                return True
            parts = [*(() if target.startswith("/") else where), *_parts(target)]
    except (Astray, FileNotFoundError, IndexError):
        return False
    finally:
        tree.close()
    return False


def _link(folder: int, name: str) -> str | None:
    """Where a link leads; None for what is none."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
