"""What a user adds to the default guest: files, programs with their libraries, packages."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from pyvirt.errors import SpecError
from pyvirt.guest import Guest
from pyvirt.guest.initramfs import File, script
from pyvirt.guest.libraries import Finder
from pyvirt.running.guest import apt
from pyvirt.running.guest.apt import Progress
from pyvirt.running.guest.cache import Cache
from pyvirt.running.guest.sources import Sources

_PROGRAMS = (b"#!", b"\x7fELF")
_QGA = "/usr/sbin/qemu-ga"
_PROGRAM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

Programs = dict[str, tuple[str, Path]]
"""Path in the guest → the field that asked for it, and the file on the host."""


def which(name: str) -> str | None:
    """Where the host has program *name*, looked for where root would find it too."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_PROGRAM_FOLDERS))
    return shutil.which(name, path=path)


def gather(
    guest: Guest, applets: Collection[str], sources: Sources, cache: Cache, progress: Progress
) -> dict[str, File]:
    """Every file that *guest* asks for, by its path in the guest; a later field wins.

    *applets* are the programs that busybox is already.
    """
    wanted = list(guest.packages)
    if guest.qga and which("qemu-ga") is None:
        wanted.append("qemu-guest-agent")
    named, trees = _packages(wanted, cache, progress)
    finder = Finder([*trees, Path("/")])
    files: dict[str, File] = {}
    found: Programs = {}
    for tree in named:
        files |= _package_files(tree, sources, found)
    found |= _binaries(guest, named)
    found |= _shell(found, applets)
    files |= _programs(found, finder, sources)
    files |= _named_files(guest, sources)
    if guest.init is not None:
        files["/etc/pyvirt/user"] = File(script(_init_text(guest.init, sources)), 0o755)
    return files


def _packages(
    names: list[str], cache: Cache, progress: Progress
) -> tuple[list[Path], list[Path]]:
    """The directories of the packages *names*, and of those and all that they need."""
    if not names:
        return [], []
    progress("looking for packages", None)
    trees = {a.name: apt.unpacked(a, cache, progress) for a in apt.wanted_packages(names)}
    return [trees[name] for name in names if name in trees], list(trees.values())


def _package_files(tree: Path, sources: Sources, found: Programs) -> dict[str, File]:
    """The files of an unpacked package; those that are programs go to *found*."""
    files = {}
    for source, path in _walk(tree, ""):
        if source.is_symlink():
            files[path] = File(link=os.readlink(source))
        elif source.stat().st_mode & stat.S_IXUSR or ".so" in source.name:
            found[path] = (f"packages[{tree.name.partition('_')[0]!r}]", source)
        else:
            files[path] = _file(source, sources)
    return files


def _binaries(guest: Guest, trees: list[Path]) -> Programs:
    found: Programs = {}
    for index, name in enumerate(guest.binaries):
        field = f"binaries[{index}]"
        source = _in_trees(name, trees) or which(name)
        if source is None:
            raise SpecError(field, "is neither on the host's PATH nor in packages", name)
        found[f"/usr/bin/{Path(name).name}"] = (field, Path(source))
    if guest.qga:
        source = _in_trees("qemu-ga", trees) or which("qemu-ga")
        if source is None:
            raise SpecError("qga", "needs qemu-ga, which its package does not have", True)
        found[_QGA] = ("qga", Path(source))
    return found


def _shell(found: Programs, applets: Collection[str]) -> Programs:
    """The host's shell for /bin/sh, when programs that were brought share a name with applets.

    Busybox's shell runs its own applets, whatever PATH says.
    """
    shared = [path for path in found if path.rpartition("/")[2] in applets]
    shell = which("dash") or which("sh")
    if not shared or shell is None or "/usr/bin/sh" in found:
        return {}
    return {"/usr/bin/sh": (found[shared[0]][0], Path(shell).resolve())}


def _in_trees(name: str, trees: list[Path]) -> Path | None:
    places = (tree / folder.lstrip("/") / name for tree in trees for folder in _PROGRAM_FOLDERS)
    return next((place for place in places if place.is_file()), None)


def _programs(found: Programs, finder: Finder, sources: Sources) -> dict[str, File]:
    """The files of programs, and of the libraries that they need."""
    libraries, missing = finder.needs((path, source) for path, (_, source) in found.items())
    for lack in missing:
        field, source = found.get(lack.by, ("binaries", Path(lack.by)))
        # A package may have plug-ins for libraries that it only suggests.
        if ".so" not in source.name:
            raise SpecError(field, f"needs {lack.library}, which is not on this host", lack.by)
    files: dict[str, File] = {}
    first: dict[Path, str] = {}
    for path, source in (*libraries.items(), *((p, s) for p, (_, s) in found.items())):
        if source in first and path in libraries:
            files[path] = File(link=first[source])  # one file under two names
        else:
            first[source] = path
            files[path] = _file(source, sources)
    return files


def _named_files(guest: Guest, sources: Sources) -> dict[str, File]:
    files: dict[str, File] = {}
    for path, given in guest.files.items():
        if isinstance(given, bytes):
            files[path] = File(given, 0o755 if given.startswith(_PROGRAMS) else 0o644)
        elif given.is_file():
            files[path] = _file(given, sources)
        elif given.is_dir():
            sources.note(given)
            files |= _folder(given, path, sources)
        else:
            raise SpecError(f"files[{path!r}]", "must be a file or directory", str(given))
    return files


def _folder(folder: Path, path: str, sources: Sources) -> dict[str, File]:
    files = {}
    for source, name in _walk(folder, path.rstrip("/")):
        sources.note(source.parent)
        link = os.readlink(source) if source.is_symlink() else None
        files[name] = File(link=link) if link is not None else _file(source, sources)
    return files


def _walk(folder: Path, path: str) -> Iterator[tuple[Path, str]]:
    """Every file and link below *folder*, with its path when *folder* is *path*."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        linked = [name for name in folders if Path(place, name).is_symlink()]
        for name in sorted((*names, *linked)):
            source = Path(place, name)
            if source.is_symlink() or source.is_file():
                yield source, f"{path}/{source.relative_to(folder)}"


def _file(source: Path, sources: Sources) -> File:
    data = sources.read(source)
    return File(data, stat.S_IMODE(source.stat().st_mode) & 0o7777)


def _init_text(init: str | Path, sources: Sources) -> str:
    if isinstance(init, str):
        return init
    if not init.is_file():
        raise SpecError("init", "must be a file", str(init))
    return sources.read(init).decode("utf-8", "surrogateescape")
