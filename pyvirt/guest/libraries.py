"""Which shared libraries a program needs, found as the dynamic linker would find them.

The files are read, nothing is run: `ldd` would run what it is asked about.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from attrs import frozen

from pyvirt.guest import elf

_DEFAULT = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib",
            "/usr/lib")  # fmt: skip


@frozen
class Missing:
    """`library` is needed by `by`, and in none of the directories."""

    library: str
    by: str


class Finder:
    """Looks for files below several roots, such as an unpacked package and the host's own."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(roots)
        self._directories = tuple(dict.fromkeys((*self._configured(), *_DEFAULT)))

    def file(self, path: str) -> Path | None:
        """Where on the host the guest's *path* is found."""
        for root in self._roots:
            found = _below(root, path)
            if found is not None:
                return found
        return None

    def needs(self, programs: Iterable[tuple[str, Path]]) -> tuple[dict[str, Path], list[Missing]]:
        """Paths in the guest → files on the host that *programs* (the same pairs) need."""
        found: dict[str, Path] = {}
        missing: list[Missing] = []
        todo = list(programs)
        while todo:
            path, source = todo.pop()
            for name, library in self._direct(path, source):
                if library is None:
                    missing.append(Missing(name, path))
                elif library not in found:
                    where = self.file(library)
                    assert where is not None
                    found[library] = where
                    todo.append((library, where))
        return dict(sorted(found.items())), missing

    def _direct(self, path: str, source: Path) -> Iterator[tuple[str, str | None]]:
        data = source.read_bytes()
        if not elf.is_elf(data):
            return
        program = elf.read(data, path)
        if program.interpreter:
            yield program.interpreter, self._existing(program.interpreter)
        origin = str(PurePosixPath(path).parent)
        own = [d.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for d in program.search]
        for name in program.needed:
            yield name, self._library(name, own)

    def _library(self, name: str, own: list[str]) -> str | None:
        if "/" in name:
            return self._existing(name)
        candidates = (f"{directory}/{name}" for directory in (*own, *self._directories))
        return next((path for path in candidates if self.file(path)), None)

    def _existing(self, path: str) -> str | None:
        return path if self.file(path) else None

    def _configured(self) -> Iterator[str]:
        for root in self._roots:
            yield from _ld_so_conf(root, "/etc/ld.so.conf")


def _ld_so_conf(root: Path, path: str) -> Iterator[str]:
    """The directories that an ld.so.conf names, its `include` lines followed."""
    file = _below(root, path)
    for line in file.read_text(errors="replace").splitlines() if file else ():
        word, _, rest = line.split("#")[0].strip().partition(" ")
        if word == "include":
            pattern = str(PurePosixPath("/etc") / rest.strip())
            for included in sorted(glob.glob(pattern.lstrip("/"), root_dir=root)):
                yield from _ld_so_conf(root, "/" + included)
        elif word.startswith("/"):
            yield word


def _below(root: Path, path: str, depth: int = 40) -> Path | None:
    """The file *path* of the system in *root*, with links followed inside *root*."""
    here = root
    parts = [p for p in path.split("/") if p not in ("", ".")]
    while parts:
        part = parts.pop(0)
        if part == "..":
            here = here.parent if here != root else root
            continue
        here = here / part
        if here.is_symlink():
            depth -= 1
            if depth < 0:
                return None
            target = here.readlink()
            parts[:0] = [p for p in str(target).split("/") if p not in ("", ".")]
            here = root if target.is_absolute() else here.parent
    return here if here.is_file() else None
