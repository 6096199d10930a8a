"""Kept containers: snapshots, clones, archives; what is not needed any more is gone."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from rootfs_tars import entry, tar

from pyvirt import aio
from pyvirt.container import Container
from pyvirt.errors import (
    BusyError,
    Cancelled,
    DiskFullError,
    RootFSError,
    SpecError,
    UnsupportedError,
)
from pyvirt.rootfs import Busybox, Directory, IdMap, IdRange, Overlay, RootFS, Tarball
from pyvirt.running.kept import Kept, prune
from pyvirt.running.lxc import host
from pyvirt.running.lxc.store import Store
from pyvirt.running.rootfs.watch import Watch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")

MAP = IdMap([IdRange(0, 100_000, 65_536)], [IdRange(0, 100_000, 65_536)])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store, whose containers may have any ids; at the end nothing of it is mounted."""
    monkeypatch.setattr(host, "idmap", lambda container: container.idmap)
    (tmp_path / "store").mkdir()
    yield Store(tmp_path / "store")
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    assert [line for line in mounts if str(tmp_path) in line] == []


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "root.tar"
    path.write_bytes(tar(entry("./", mode=0o755), "bin/", ("bin/a", b"a"), entry("u", uid=5, gid=6),
                         "h => bin/a", "l -> bin/a"))  # fmt: skip
    return path


@pytest.fixture(params=["tree", "overlay", "mapped-tree", "mapped-overlay"])
def kept(request: pytest.FixtureRequest, store: Store, archive: Path) -> Kept:
    """A kept container of each kind that there is."""
    rootfs: RootFS = Tarball(archive)
    if "overlay" in request.param:
        rootfs = Overlay(rootfs)
    idmap = MAP if "mapped" in request.param else None
    container = Container(name="web", rootfs=rootfs, idmap=idmap, env={"A": "b"})
    return Kept.create(container, store=store)


def upper(kept: Kept) -> Path:
    """Where the container's own files are written while it runs."""
    return kept.tree.paths(kept._states)[0]


def content(kept: Kept) -> dict[str, tuple[int, int, bytes]]:
    """The container's files as it sees them."""
    from pyvirt.running.rootfs.merged import merged

    tree = kept.tree
    found = {}
    with merged(tree.paths(kept._states), userxattr=bool(tree.idmap)) as fd:
        top = Path(f"/proc/self/fd/{fd}")
        for path in top.rglob("*"):
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                shift = 100_000 if tree.idmap and tree.lowers else 0
                owner = (status.st_uid - shift, status.st_gid - shift)
                found[str(path.relative_to(top))] = (*owner, path.read_bytes())
    return found


MADE = {"bin/a": (0, 0, b"a"), "h": (0, 0, b"a"), "u": (5, 6, b"")}


def put(kept: Kept, name: str, data: bytes) -> None:
    path = upper(kept) / name
    path.write_bytes(data)
    if kept.tree.idmap and kept.tree.lowers:
        os.chown(path, 100_000, 100_000)


def states(store: Store) -> set[str]:
    folder = store.root / ".kept" / ".states"
    return {path.name for path in folder.iterdir()}


def test_it_is_found_again_with_its_description(kept: Kept, store: Store) -> None:
    again = Kept.find("web", store=store)
    assert again.container == kept.container
    assert again.container.env == {"A": "b"}
    assert repr(again) == "<Kept web>"
    assert [each.name for each in Kept.all(store=store)] == ["web"]
    assert content(kept) == MADE


def test_a_snapshot_is_what_comes_back(kept: Kept, store: Store) -> None:
    put(kept, "new", b"1")
    taken = kept.snapshot("first")
    put(kept, "new", b"2")
    put(kept, "more", b"3")
    kept.snapshot("second")
    kept.restore("first")
    assert content(kept) == {**MADE, "new": (0, 0, b"1")}
    assert [each.name for each in kept.snapshots()] == ["first", "second"]
    assert (taken.name, repr(kept)) == ("first", "<Kept web, 2 snapshots>")
    kept.restore("second")
    assert content(kept)["more"] == (0, 0, b"3")
    assert len(states(store)) == 3
    kept.remove_snapshot("first")
    kept.remove_snapshot("second")
    assert len(states(store)) == 1


@pytest.mark.parametrize("overlay", [False, True])
def test_clones_go_their_own_ways(kept: Kept, store: Store, overlay: bool) -> None:
    put(kept, "new", b"1")
    clone = kept.clone("other", overlay=overlay)
    put(kept, "mine", b"2")
    put(clone, "theirs", b"3")
    common = {**MADE, "new": (0, 0, b"1")}
    assert content(kept) == {**common, "mine": (0, 0, b"2")}
    assert content(clone) == {**common, "theirs": (0, 0, b"3")}
    assert clone.container.name == "other"
    third = clone.clone("third", overlay=overlay)
    kept.destroy()
    clone.destroy()
    assert content(third) == {**common, "theirs": (0, 0, b"3")}
    third.destroy()
    assert states(store) == set()
    assert sorted(path.name for path in (store.root / ".kept").iterdir()) == [".states"]
    assert list((store.root / ".locks").iterdir()) == []


def test_an_overlay_shares_what_is_not_changed(kept: Kept, store: Store) -> None:
    kept.clone("first", overlay=True)
    count = len(states(store))
    kept.clone("second", overlay=True)
    assert len(states(store)) == count + 1


def test_one_template_gives_many_at_once(kept: Kept, store: Store) -> None:
    put(kept, "new", b"1")
    names = [f"c{number}" for number in range(12)]
    made = kept.clones(names)
    assert [each.name for each in made] == names
    assert [each.name for each in Kept.all(store=store)] == sorted([*names, "web"])
    for each in made:
        put(each, "own", each.name.encode())
    assert {content(each)["own"][2].decode() for each in made} == set(names)


def test_of_many_that_cannot_all_be_made_none_is(kept: Kept, store: Store) -> None:
    kept.clone("c3")
    before = states(store)
    with pytest.raises(SpecError) as caught:
        kept.clones([f"c{number}" for number in range(5)], overlay=False)
    assert (caught.value.field, caught.value.value) == ("name", "c3")
    assert [each.name for each in Kept.all(store=store)] == ["c3", "web"]
    kept.snapshot("x")
    kept.remove_snapshot("x")
    assert states(store) == before


def test_it_is_called_otherwise(kept: Kept, store: Store) -> None:
    kept.snapshot("first")
    renamed = kept.rename("new-name")
    assert renamed.container.name == "new-name"
    assert [each.name for each in Kept.all(store=store)] == ["new-name"]
    renamed.restore("first")
    assert content(renamed) == MADE
    renamed.clone("web")
    with pytest.raises(SpecError, match="is taken by a container"):
        renamed.rename("web")


def test_it_is_carried_elsewhere_in_one_file(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(kept, "new", b"1" * 300_000)
    os.setxattr(upper(kept) / "new", "user.note", b"\xff\0")
    file = kept.export(tmp_path / "web.tar.zst")
    assert file.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    listed = subprocess.run(["tar", "--zstd", "-tf", file], check=True, capture_output=True)
    assert listed.stdout.splitlines()[:2] == [b"pyvirt.json", b"rootfs/"]
    with pytest.raises(FileExistsError):
        kept.export(file)
    there = Store(tmp_path / "elsewhere")
    made = Kept.import_(file, store=there)
    assert made.container == kept.container
    assert content(made) == content(kept)
    again = Kept.import_(file, "again", store=there)
    assert again.container.name == "again"
    assert os.getxattr(upper(again) / "new", "user.note") == b"\xff\0"
    assert (upper(again) / "h").stat().st_nlink == 2


def left(store: Store) -> list[str]:
    """All that is in a store, but its locks and what many share."""
    names = (str(path.relative_to(store.root)) for path in store.root.rglob("*"))
    return sorted(name for name in names if not name.startswith((".locks", ".bases")))


def test_damaged_exports_are_refused_and_leave_nothing(kept: Kept, tmp_path: Path) -> None:
    file = kept.export(tmp_path / "web.tar.zst")
    data = file.read_bytes()
    there = Store(tmp_path / "elsewhere")
    there.root.mkdir()
    for number, size in enumerate(range(0, len(data), max(1, len(data) // 12))):
        cut = tmp_path / f"{number}.zst"
        cut.write_bytes(data[:size])
        with pytest.raises(RootFSError):
            Kept.import_(cut, store=there)
    assert [name for name in left(there) if name not in (".kept", ".kept/.states")] == []


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([("other", b"")], "does not begin with pyvirt.json: it is no export of pyvirt"),
        ([("pyvirt.json", b"{")], "has a pyvirt.json that is not JSON"),
        ([("pyvirt.json", b'{"version": 9}')], "is of version 9, and not of 1"),
        ([("pyvirt.json", b'{"version": 1}')], "has no description of a container"),
        ([("pyvirt.json", b'{"version": 1, "container": {"name": "x"}}'), ("etc/x", b"")],
         "lies beside rootfs"),
        ([("pyvirt.json", b'{"version": 1, "container": {"name": "x"}}'), ("rootfs/../../x", b"")],
         "leads out of the root by '..'"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused(
    store: Store, tmp_path: Path, entries: list[tuple[str, bytes]], reason: str
) -> None:
    file = tmp_path / "bad.tar.zst"
    file.write_bytes(tar(*entries))
    with pytest.raises(RootFSError) as caught:
        Kept.import_(file, store=store)
    assert caught.value.reason.startswith(reason)
    assert [name for name in left(store) if name not in (".kept", ".kept/.states")] == []


def test_what_fails_is_undone(kept: Kept, store: Store, tmp_path: Path) -> None:
    before = left(store)
    stop = threading.Event()
    stop.set()
    for act in (kept.snapshot, kept.clone, kept.export):
        with pytest.raises(Cancelled):
            act(str(tmp_path / "x") if act == kept.export else "x", cancel=stop.is_set)
    assert left(store) == before
    assert not (tmp_path / "x").exists()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "small"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "none", target], check=True)
    yield target
    subprocess.run(["umount", target], check=True)


def test_a_full_disk_is_told(small: Path, tmp_path: Path, archive: Path) -> None:
    store = Store(small)
    container = Container(name="c", rootfs=Tarball(archive), idmap=None)
    kept = Kept.create(container, store=store)
    (upper(kept) / "big").write_bytes(os.urandom(1_100_000))
    before = left(store)
    for act in (kept.snapshot, kept.clone):
        with pytest.raises(DiskFullError):
            act("x")
    with pytest.raises(DiskFullError):
        kept.export(small / "c.tar.zst")
    assert left(store) == before


def test_two_do_not_work_on_one(kept: Kept, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyvirt.running.kept.kept.PATIENCE", 0.0)
    with store.lock("web~kept"), pytest.raises(BusyError) as caught:
        kept._alone("x", 0.1).__enter__()
    assert caught.value.holder == str(os.getpid())


def test_what_is_not_its_own_is_not_kept(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        Kept.create(Container(name="c", rootfs=Directory(tmp_path), idmap=None), store=store)
    assert caught.value.field == "rootfs"
    with pytest.raises(SpecError) as caught:
        Kept.create(Container(), store=store)
    assert str(caught.value) == "name must be given for a container that is kept, got None"
    with pytest.raises(SpecError) as caught:
        Kept.find("nobody", store=store)
    assert str(caught.value) == "name must be one of the kept containers (none), got 'nobody'"
    assert [name for name in left(store) if name not in (".kept", ".kept/.states")] == []


def test_too_many_layers_are_told_before_anything_changes(store: Store) -> None:
    kept = Kept.create(Container(name="c", rootfs=Busybox(), idmap=None), store=store)

    def clone_for_ever() -> None:
        for number in range(100):
            put(kept, "x", b"")
            kept.clone(f"c{number}", overlay=True)

    with pytest.raises(UnsupportedError) as caught:
        clone_for_ever()
    assert caught.value.hint.startswith("clone it with overlay=False")
    assert kept.snapshot("still").name == "still"


def test_a_state_in_the_making_is_not_collected(kept: Kept, store: Store) -> None:
    with kept._states.new(Watch("x")) as state:
        kept._collect()
        assert state in states(store)
    kept._collect()
    assert state not in states(store)


def test_the_description_is_readable_json(kept: Kept) -> None:
    file = kept.place / "container.json"
    assert json.loads(file.read_text())["name"] == "web"
    assert file.stat().st_mode & 0o777 == 0o600


def public(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if not name.startswith("_")}


def words(method: Any) -> list[tuple[str, Any, Any]]:
    known = inspect.signature(method).parameters.values()
    return [(one.name, one.kind, one.default) for one in known]


def test_the_awaited_face_cannot_drift_from_the_blocking_one() -> None:
    here, there = public(aio.Kept), public(Kept)
    assert set(here) - {"of", "name", "store"} == set(there)
    for name in there:
        assert isinstance(here[name], property) == isinstance(there[name], property), name
        if not isinstance(here[name], property):
            ours = getattr(aio.Kept, name)
            assert words(ours) == words(getattr(Kept, name)), name
            assert inspect.iscoroutinefunction(ours) or name == "start", name


def test_it_is_awaited(store: Store, archive: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        described = Container(name="web", rootfs=Tarball(archive), idmap=None)
        kept = await aio.Kept.create(described, store=store)
        await kept.snapshot("first")
        await kept.restore("first")
        clones = await kept.clones(["a", "b"])
        assert [repr(each) for each in clones] == ["<Kept a>", "<Kept b>"]
        await kept.export(tmp_path / "x.tar.zst")
        await (await kept.rename("other")).destroy()
        again = await aio.Kept.import_(tmp_path / "x.tar.zst", store=store)
        assert (again.name, again.state, await again.running()) == ("web", "stopped", None)
        with pytest.raises(SpecError):
            await aio.Kept.find("nobody", store=store)
        for each in await aio.Kept.all(store=store):
            await each.destroy()

    asyncio.run(scenario())
    assert states(store) == set()


def test_a_cancelled_task_gives_the_act_up(store: Store, archive: Path) -> None:
    asked, told = threading.Event(), threading.Event()

    def cancel() -> bool:
        asked.set()
        assert told.wait(60)
        return False

    async def scenario() -> None:
        kept = await aio.Kept.create(
            Container(name="web", rootfs=Tarball(archive), idmap=None), store=store
        )
        task = asyncio.ensure_future(kept.snapshot("first", cancel=cancel))
        await asyncio.to_thread(asked.wait, 60)
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)  # the task hears of it
        told.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await kept.snapshots() == []

    asyncio.run(scenario())
    assert len(states(store)) == 1


def test_a_description_makes_what_is_kept(store: Store, archive: Path) -> None:
    kept = Container(name="web", rootfs=Tarball(archive), idmap=None).create(store=store)
    assert Kept.find("web", store=store).tree == kept.tree
    other = kept.rename("other")
    assert [path.name for path in (store.root / ".locks").iterdir()] == ["other~kept"]
    other.destroy()
    with pytest.raises(SpecError):
        other.snapshot("late")
    assert [*(store.root / ".locks").iterdir()] == []


def test_a_base_goes_when_nothing_is_over_it(store: Store, archive: Path) -> None:
    described = Container(rootfs=Overlay(Tarball(archive)), idmap=None)
    kept = attrs.evolve(described, name="web").create(store=store)
    kept.snapshot("first")
    [base] = (store.root / ".bases" / "trees").iterdir()
    os.utime(base, (0, 0))
    assert prune(store) == []
    snapshots = kept.place / "snapshots"
    clone = kept.clone("other", overlay=True)
    kept.destroy()
    assert (base.exists(), snapshots.exists()) == (True, False)
    clone.destroy()
    assert not base.exists()
