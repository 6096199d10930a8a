"""What was downloaded and built for default guests, kept between runs and shared by processes.

    objects/<sha256><suffix>   contents, named by what they are: never changed
    trees/<name>/              unpacked packages, named with their version: never changed
    recipes/<key>.json         what was built for a key: its objects, and the files it was
                               made of with their identities
    locks/<name>               held while something of that name is made
    making/                    what is not ready, removed by the next one if its maker died

Everything becomes visible by one rename, when it is whole and on the disk, and disappears
by one. So readers need no lock; a lock only keeps two processes from doing the same work.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from pyvirt.running.guest.sources import Identity, identity
from pyvirt.running.host.cache import cache_directory

_DAY = 86400
_ABANDONED = 60  # seconds after which what is being made, and locked by nobody, is left over


@frozen
class Recipe:
    """What was built: `objects` by their role, and whatever `values` belong to them."""

    objects: dict[str, Path]
    values: dict[str, str]


class Cache:
    """The cache in directory *root*, made when it is first written to."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_directory()

    def recipe(self, key: str) -> Recipe | None:
        """What was built for *key*, if all it was made of and all it gave is unchanged."""
        path = self._recipe(key)
        try:
            text = json.loads(path.read_bytes())
            if not all(_is(name, known) for name, known in text["inputs"].items()):
                return None
            objects = {role: self._object(*record) for role, record in text["objects"].items()}
            os.utime(path)  # prune() goes by the last use
            return Recipe(objects, dict(text["values"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # absent or damaged, itself or what it names: it is built anew

    def store(self, key: str, made: Recipe, inputs: Mapping[str, Identity]) -> None:
        """Remember what was *made* for *key* of *inputs*; its objects are what `add` gave."""
        record = {
            "inputs": dict(inputs),
            "objects": {role: [path.name, identity(path)] for role, path in made.objects.items()},
            "values": made.values,
        }
        with self._making() as place:
            new = place / "recipe"
            _write(new, [json.dumps(record).encode()])
            self._publish(new, self._recipe(key))

    def add(self, pieces: Iterable[bytes], suffix: str) -> Path:
        """The object that holds *pieces*."""
        digest = hashlib.sha256()
        with self._making() as place:
            new = place / "object"
            _write(new, _digested(pieces, digest.update))
            target = self.root / "objects" / f"{digest.hexdigest()}{suffix}"
            if not _is_whole(target):
                new.chmod(0o444)
                self._publish(new, target)
        return target

    def tree(self, name: str, make: Callable[[Path], None]) -> Path:
        """The directory *name*, which ``make(directory)`` fills if it is not there."""
        target = self.root / "trees" / name
        if not target.is_dir():
            with self.lock(f"tree-{name}"):
                if not target.is_dir():
                    self._make_tree(target, make)
        with suppress(OSError):
            os.utime(target)
        return target

    def _make_tree(self, target: Path, make: Callable[[Path], None]) -> None:
        with self._making() as place:
            new = place / "tree"
            new.mkdir()
            make(new)
            os.sync()  # thousands of files: one by one would take minutes
            self._publish(new, target)

    def trees(self) -> list[Path]:
        """The directories that are there."""
        return self._all("trees")

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Holds the lock *name* against threads and processes; it ends with its process."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def prune(self, days: float = 30, keep: Collection[Path] = ()) -> list[Path]:
        """Remove what was not used for *days*, and nothing that is needed; what was removed.

        The trees in *keep* stay.
        """
        oldest = time.time() - days * _DAY
        needed = {path: _needs(path) for path in self._all("recipes") if _used(path) >= oldest}
        stale = [path for path in self._all("recipes") if not needed.get(path)]
        names = {name for some in needed.values() for name in some}
        stale += [p for p in self._all("objects") if p.name not in names and _used(p) < oldest]
        stale += [
            tree
            for tree in self.trees()
            if tree not in keep
            and _used(tree) < oldest
            and not any(name.startswith(f"{tree}/") for name in names)
        ]
        self._discard(stale)
        return stale

    def remove(self) -> None:
        """Remove everything. Guests that run keep the files that they have opened."""
        self._discard([p for part in ("recipes", "objects", "trees") for p in self._all(part)])

    def _all(self, part: str) -> list[Path]:
        folder = self.root / part
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def _recipe(self, key: str) -> Path:
        return self.root / "recipes" / f"{key}.json"

    def _object(self, name: str, known: list[int]) -> Path:
        path = self.root / "objects" / name
        if not _is(path, known) and not _is_whole(path):
            raise ValueError(f"{path} is damaged")
        return path

    @contextmanager
    def _making(self) -> Iterator[Path]:
        """A directory on the file system of the cache, locked while this process lives."""
        folder = self.root / "making"
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        place = Path(tempfile.mkdtemp(dir=folder))
        handle = _lock(place)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            if handle is not None:
                os.close(handle)

    def _publish(self, new: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            new.rename(target)
        except OSError:
            if not target.is_dir():  # a directory that another process was first to make
                raise
        _sync(target.parent)

    def _discard(self, paths: list[Path]) -> None:
        """Remove *paths*: each disappears at once, its contents a little later."""
        if not paths:
            return
        with self._making() as place:
            for number, path in enumerate(paths):
                with suppress(FileNotFoundError):
                    path.rename(place / str(number))


def _sweep(folder: Path) -> None:
    """Remove what processes left that were killed while they made it."""
    for place in folder.iterdir():
        if _used(place) < time.time() - _ABANDONED and (handle := _lock(place)) is not None:
            shutil.rmtree(place, ignore_errors=True)
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock of *folder*; None when another process holds it."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _is(path: str | Path, known: list[int] | None) -> bool:
    found = identity(path)
    return found is not None and list(found) == known


def _is_whole(path: Path) -> bool:
    """Whether the contents of object *path* are what its name says."""
    try:
        with path.open("rb") as file:
            return path.name.startswith(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError:
        return False


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _needs(recipe: Path) -> list[str]:
    """The files that a recipe was made of, and the names of its objects; none if damaged."""
    try:
        record = json.loads(recipe.read_bytes())
        return [*record["inputs"], *(name for name, _ in record["objects"].values())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _digested(pieces: Iterable[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("xb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
