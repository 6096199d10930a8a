"""One kept container: made, started, copied, put back to what it was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs

from pyvirt import html
from pyvirt.container import Container
from pyvirt.errors import ClosedError, RunsError, SpecError
from pyvirt.files.read import build
from pyvirt.files.write import table
from pyvirt.running.kept import archive, record
from pyvirt.running.kept.bases import prune
from pyvirt.running.kept.record import Snapshot, Tree
from pyvirt.running.kept.states import States
from pyvirt.running.lxc import host
from pyvirt.running.lxc.store import Store
from pyvirt.running.rootfs import base, copying, prepare
from pyvirt.running.rootfs.making import made, remove
from pyvirt.running.rootfs.watch import Cancel, Progress, Watch

if TYPE_CHECKING:
    from pyvirt.running.lxc.container import RunningContainer
    from pyvirt.running.lxc.exit import ContainerExit

#: Seconds that somebody else may work on the container before an act gives up.
PATIENCE = 30.0

_DESCRIPTION, _TREE, _SNAPSHOTS = "container.json", "tree.json", "snapshots"


class Kept:
    """A container that is there whether it runs or not.

    What it is made of is made once, by `create`; each start goes on where the last one ended.
    Two processes never work on one at once: the second waits, and then raises `BusyError`.
    Long acts take `progress`, called with what is done and how much of it, and `cancel`,
    which is asked again and again whether to give up (`Cancelled`); either way nothing is
    left behind.
    """

    def __init__(self, name: str, store: Store) -> None:
        self.name, self.store = name, store
        self._states = States(store.root / ".kept" / ".states")

    @classmethod
    def create(
        cls,
        container: Container,
        *,
        store: Store | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Self:
        """Make what *container*, which must have a name, describes; it is not started."""
        if container.name is None:
            raise SpecError("name", "must be given for a container that is kept", None)
        kept = cls(container.name, store or Store())
        idmap = host.idmap(container)
        watch = Watch(f"creating container {kept.name}", progress, cancel)
        with kept._new() as place, kept._states.new(watch) as state:
            prepared = prepare(
                container.rootfs, kept._states.place(state), idmap=idmap, progress=progress,
                cancel=cancel, bases=kept.store.root / ".bases",
            )  # fmt: skip
            if not prepared.owned:
                reason = (
                    "must be its own for a container that is kept: use copy=True, or an Overlay"
                )
                raise SpecError("rootfs", reason, container.rootfs)
            kept._describe(place, container)
            record.write(place / _TREE, Tree.of(prepared, state, idmap))
        return kept

    @classmethod
    def find(cls, name: str, *, store: Store | None = None) -> Self:
        """The kept container called *name*; `SpecError` when there is none."""
        kept = cls(name, store or Store())
        if not kept.place.is_dir():
            there = ", ".join(each.name for each in cls.all(store=store)) or "none"
            raise SpecError("name", f"must be one of the kept containers ({there})", name)
        return kept

    @classmethod
    def all(cls, *, store: Store | None = None) -> list[Self]:
        """Every kept container, by name."""
        place = store or Store()
        folder = place.root / ".kept"
        names = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
        return [cls(name, place) for name in names if not name.startswith(".")]

    @property
    def place(self) -> Path:
        """The directory with what is written down about it."""
        return self.store.root / ".kept" / self.store.place(self.name).name

    @property
    def container(self) -> Container:
        """Its description."""
        made = build(Container, json.loads((self.place / _DESCRIPTION).read_text()), "")
        assert isinstance(made, Container)
        return made

    @property
    def tree(self) -> Tree:
        """What its root file system is made of."""
        return record.read(self.place / _TREE, Tree)

    def running(self) -> RunningContainer | None:
        """It as it runs, to be closed by whoever asked; None when it does not."""
        from pyvirt.running.lxc.container import RunningContainer

        try:
            return RunningContainer.attach(self.name, store=self.store)
        except (SpecError, ClosedError):
            return None

    def start(
        self, *, timeout: float = PATIENCE, progress: Progress | None = None, detach: bool = False
    ) -> RunningContainer:
        """Start it; see `Container.start`. What it changes stays when it ends."""
        from pyvirt.running.lxc.container import RunningContainer

        with self._alone("starting it again", timeout):
            self._bury()
            tree = self.tree
            container = attrs.evolve(
                self.container, name=self.name, rootfs=tree.made(self._states), idmap=tree.idmap
            )
            return RunningContainer.start(
                container, timeout=timeout, progress=progress, detach=detach, store=self.store
            )

    def stop(self, *, timeout: float = PATIENCE) -> ContainerExit | None:
        """End it, if it runs: asked first, and killed after *timeout* seconds. How it ended."""
        running = self.running()
        if running is None:
            return None
        try:
            return running.shutdown(timeout=timeout)
        finally:
            running.destroy()

    @property
    def state(self) -> str:
        """In liblxc's words: "running", "frozen", ..., or "stopped"."""
        running = self.running() if self.store.place(self.name).is_dir() else None
        if running is None:
            return "stopped"
        with running:
            return running.status()

    def snapshot(
        self, name: str, *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> Snapshot:
        """Remember what it is now as *name*. Over an overlay only its changes are copied."""
        watch = Watch(f"a snapshot of {self.name}", progress, cancel)
        with self._alone("taking a snapshot"):
            target = self._snapshot(name)
            if target.exists():
                raise SpecError("name", "is taken by a snapshot", name)
            with self._copy(self.tree, watch) as tree:
                taken = Snapshot(name, time.time(), tree)
                target.parent.mkdir(exist_ok=True)
                record.write(target, taken)
        return taken

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots, the oldest first."""
        found = [record.read(each, Snapshot) for each in self._snapshot_files()]
        return sorted(found, key=lambda snapshot: snapshot.taken)

    def restore(
        self, name: str, *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> None:
        """Make it what it was at snapshot *name*, which stays; what it is now is lost."""
        watch = Watch(f"restoring {self.name}", progress, cancel)
        with self._alone("restoring it"):
            with self._copy(self._found(name).tree, watch) as tree:
                record.write(self.place / _TREE, tree)
            self._collect()

    def remove_snapshot(self, name: str) -> None:
        """Forget snapshot *name*."""
        with self._alone("removing a snapshot"):
            self._found(name)
            self._snapshot(name).unlink()
            self._collect()

    def clone(
        self,
        name: str,
        *,
        overlay: bool = False,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Kept:
        """A new kept container like this one, without its snapshots.

        It is a copy; with *overlay*, what they are now is shared, and only what either
        changes from now on is its own. Neither needs the other to stay.
        """
        (made,) = self.clones([name], overlay=overlay, progress=progress, cancel=cancel)
        return made

    def clones(
        self,
        names: Iterable[str],
        *,
        overlay: bool = True,
        workers: int = 4,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> list[Kept]:
        """Several clones, *workers* at a time; all of them, or none when one fails."""
        watch = Watch(f"cloning {self.name}", progress, cancel)
        targets = [Kept(name, self.store) for name in names]
        with self._alone("cloning it"), ThreadPoolExecutor(workers) as pool:
            tree = self._freeze(watch) if overlay else self.tree
            jobs = [pool.submit(each._become, self.container, tree, overlay, watch)
                    for each in targets]  # fmt: skip
            faults = [job.exception() for job in jobs]
            if fault := next((each for each in faults if each is not None), None):
                for target, failed in zip(targets, faults, strict=True):
                    if failed is None:
                        target.destroy()
                raise fault
        return targets

    def rename(self, name: str) -> Kept:
        """Call it *name* from now on; the kept container of that name."""
        other = Kept(name, self.store)
        with self._alone("renaming it"), other._lock():
            if other.place.exists():
                raise SpecError("name", "is taken by a container", name)
            described = attrs.evolve(self.container, name=name)
            self._describe(self.place, described)
            self.place.rename(other.place)
            self.store.forget(self._lock_name)
        return other

    def export(
        self,
        path: str | Path,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Path:
        """Write it to one ``.tar.zst``: its description and its root file system, whole.

        Snapshots stay behind. Raises `FileExistsError` when there is such a file.
        """
        watch = Watch(f"exporting {self.name}", progress, cancel)
        with self._alone("exporting it"):
            tree = self.tree
            return archive.write(
                Path(path), self.container, tree.process, tree.paths(self._states), tree.idmap,
                watch,
            )  # fmt: skip

    @classmethod
    def import_(
        cls,
        path: str | Path,
        name: str | None = None,
        *,
        devices: bool = False,
        limit: int | str = "32G",
        store: Store | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Self:
        """Make the container that `export` wrote to *path*, called *name* or as it was.

        The file may be a stranger's, as in `Tarball`: *devices* and *limit* are those.
        """
        watch = Watch(f"importing {path}", progress, cancel)
        with archive.reading(Path(path), devices, limit, watch) as found:
            container = attrs.evolve(found.container, name=name or found.container.name)
            if container.name is None:
                raise SpecError("name", "must be given for a container that is kept", None)
            kept = cls(container.name, store or Store())
            idmap = host.idmap(container)
            with kept._new() as place, kept._states.new(watch) as state:
                with made(kept._states.root(state), watch) as root:
                    found.unpack(root, idmap)
                kept._describe(place, container)
                options = () if idmap is None else ("idmap=container",)
                record.write(place / _TREE, Tree(state, (), options, found.process, idmap))
        return kept

    def destroy(self) -> None:
        """Remove it with its snapshots. What others share with it stays for them."""
        with self._alone("destroying it"):
            self._bury()
            remove(self.place)
            self._collect()
            self.store.forget(self._lock_name)
        prune(self.store)

    # How

    def _become(self, container: Container, tree: Tree, overlay: bool, watch: Watch) -> None:
        """The clone, of a tree that nobody changes meanwhile."""
        with self._new() as place, self._child(tree, overlay, watch) as own:
            self._describe(place, attrs.evolve(container, name=self.name))
            record.write(place / _TREE, own)

    @contextmanager
    def _child(self, tree: Tree, overlay: bool, watch: Watch) -> Iterator[Tree]:
        if not overlay:
            with self._copy(tree, watch) as copy:
                yield copy
            return
        with self._states.new(watch) as state:
            yield self._empty(tree, state)

    @contextmanager
    def _copy(self, tree: Tree, watch: Watch) -> Iterator[Tree]:
        """The tree with a state of its own; what is below an overlay is shared."""
        with self._states.new(watch) as state:
            place = self._states.place(state)
            with made(place / "rootfs", watch) as root:
                copying.copy(self._states.root(tree.state), root, watch, watch.what)
            if tree.lowers:
                with made(place / "work", watch) as work:
                    base.give(work, tree.idmap)
            yield attrs.evolve(tree, state=state)

    def _freeze(self, watch: Watch) -> Tree:
        """A tree whose states nobody changes any more; this container goes on over it."""
        tree = self.tree
        if tree.lowers and not any(self._states.root(tree.state).iterdir()):
            return tree
        with ExitStack() as stack:
            if not tree.lowers and tree.idmap is not None:
                tree = stack.enter_context(self._shifted(tree, watch))
            state = stack.enter_context(self._states.new(watch))
            above = attrs.evolve(tree, lowers=(tree.state, *tree.lowers))
            record.write(self.place / _TREE, self._empty(above, state))
            return above

    def _empty(self, tree: Tree, state: str) -> Tree:
        """An overlay over all that `tree` shares, with nothing of its own yet."""
        upper = self._states.place(state)
        for name in ("rootfs", "work"):
            (upper / name).mkdir(exist_ok=True)
            (upper / name).chmod(0o755)
            base.give(upper / name, tree.idmap)
        base.take_after(upper / "rootfs", self._states.root(tree.state))
        options = () if tree.idmap is None else ("userxattr",)
        own = attrs.evolve(tree, state=state, options=options)
        own.made(self._states)  # whether liblxc can mount it
        return own

    @contextmanager
    def _shifted(self, tree: Tree, watch: Watch) -> Iterator[Tree]:
        """The same files, whose owners are the host's ids: overlays are not mapped."""
        assert tree.idmap is not None
        with self._states.new(watch) as state:
            with made(self._states.root(state), watch) as root:
                copying.copy(self._states.root(tree.state), root, watch, watch.what)
                base.shift(root, tree.idmap)
            yield attrs.evolve(tree, state=state)

    @contextmanager
    def _new(self) -> Iterator[Path]:
        """Where to write down what a new container is; it is there when the body ends well."""
        with self._lock():
            if self.place.exists() or self.store.place(self.name).exists():
                raise SpecError("name", "is taken by a container", self.name)
            folder = self.place.parent
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            with made(folder / f".{self.name}.part", Watch("creating a container")) as part:
                yield part
                part.rename(self.place)

    @contextmanager
    def _alone(self, act: str, timeout: float = PATIENCE) -> Iterator[None]:
        """Nobody else works on it, and it does not run."""
        with self._lock(timeout):
            if not self.place.is_dir():
                self.store.forget(self._lock_name)
                raise SpecError("name", "must be a container that is kept", self.name)
            if self._runs():
                raise RunsError(self.name, act)
            yield

    def _lock(self, timeout: float = PATIENCE) -> AbstractContextManager[None]:
        return self.store.lock(self._lock_name, timeout)

    @property
    def _lock_name(self) -> str:
        """Not the one that it has while it runs; no container can be called so."""
        return f"{self.name}~kept"

    def _runs(self) -> bool:
        if not self.store.place(self.name).is_dir():
            return False
        running = self.running()
        if running is not None:
            running.close()
        return running is not None

    def _bury(self) -> None:
        """Remove what is left of it since it ran; a root file system is not among that."""
        if self.store.place(self.name).is_dir():
            with self.store.lock(self.name, PATIENCE):
                remove(self.store.place(self.name))
                self.store.forget(self.name)

    def _describe(self, place: Path, container: Container) -> None:
        record.write(place / _DESCRIPTION, json.dumps(table(container), indent=2).encode())

    def _snapshot(self, name: str) -> Path:
        return self.place / _SNAPSHOTS / f"{self.store.place(name).name}.json"

    def _found(self, name: str) -> Snapshot:
        try:
            return record.read(self._snapshot(name), Snapshot)
        except FileNotFoundError:
            there = ", ".join(each.name for each in self.snapshots()) or "none"
            raise SpecError("name", f"must be one of the snapshots ({there})", name) from None

    def _snapshot_files(self) -> list[Path]:
        folder = self.place / _SNAPSHOTS
        return list(folder.glob("*.json"))

    def _collect(self) -> None:
        """Remove the states that no container and no snapshot needs, in the making or not."""
        needed: set[str] = set()
        for place in self.place.parent.iterdir():
            with suppress(FileNotFoundError):
                needed |= record.read(place / _TREE, Tree).states
            for each in (place / _SNAPSHOTS).glob("*.json"):
                with suppress(FileNotFoundError):
                    needed |= record.read(each, Snapshot).tree.states
        self._states.collect(needed)

    def __repr__(self) -> str:
        count = len(self._snapshot_files())
        more = f", {count} snapshot{'s' * (count != 1)}" if count else ""
        gone = "" if self.place.is_dir() else ", destroyed"
        return f"<Kept {self.name}{more}{gone}>"

    def _repr_html_(self) -> str:
        names = ", ".join(each.name for each in self.snapshots()) or "none"
        rows = {"place": str(self.place), "snapshots": names, "description": repr(self.container)}
        return html.card(f"Kept container {self.name}", rows)
