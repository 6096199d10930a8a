"""The files of an initramfs by path, in the merged layout: /bin, /sbin and /lib are in /usr."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import PurePosixPath

from pyvirt.errors import SpecError
from pyvirt.guest import cpio

_LINKS = {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
_LINKS_IN_USR = {"usr/sbin": "bin"}


class Tree:
    """Collects files; what is added later replaces what has the same path."""

    def __init__(self) -> None:
        self._entries: dict[str, cpio.Entry] = {}
        for link, target in (_LINKS | _LINKS_IN_USR).items():
            self._entries[link] = cpio.symlink(link, target)
        for path in ("usr/bin", "usr/lib", "usr/lib64"):
            self.directory(path)

    def __contains__(self, path: str) -> bool:
        return merged(path) in self._entries

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A regular file with permissions *mode*."""
        self._add(cpio.regular(merged(path), data, mode))

    def directory(self, path: str, mode: int = 0o755) -> None:
        """A directory, or new permissions for the one that is there."""
        self._add(cpio.directory(merged(path), mode))

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link to *target*."""
        self._add(cpio.symlink(merged(path), target))

    def character(self, path: str, major: int, minor: int) -> None:
        """A character device node."""
        self._add(cpio.character(merged(path), major, minor))

    def entries(self) -> Iterator[cpio.Entry]:
        """All entries, directories before what is in them."""
        for path in sorted(self._entries):
            yield self._entries[path]

    def _add(self, entry: cpio.Entry) -> None:
        for parent in list(PurePosixPath(entry.path).parents)[-2::-1]:
            above = self._entries.setdefault(str(parent), cpio.directory(str(parent)))
            if not stat.S_ISDIR(above.mode):
                raise SpecError(f"files['/{entry.path}']", "lies below a file", f"/{parent}")
        old = self._entries.get(entry.path)
        if old and stat.S_ISDIR(old.mode) != stat.S_ISDIR(entry.mode):
            raise SpecError(f"files['/{entry.path}']", "cannot be both file and directory", "/")
        self._entries[entry.path] = entry


def merged(path: str) -> str:
    """*path* relative to the root, with the links of the merged layout followed."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise SpecError("path", "must name something below the root", path)
    if len(parts) > 1 and parts[0] in _LINKS:
        parts[:1] = _LINKS[parts[0]].split("/")
    if len(parts) > 2 and parts[:2] == ["usr", "sbin"]:
        parts[1] = "bin"
    return "/".join(parts)
