"""The cache of default guests: nothing half-made is seen, whoever dies or writes into it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pyvirt.running.guest.cache import Cache, Recipe
from pyvirt.running.guest.sources import Sources

KEY = "0" * 64
LONG_AGO = time.time() - 40 * 86400


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"made of this")
    os.utime(path, (LONG_AGO, LONG_AGO))
    time.sleep(0.03)  # a file changed in this tick of the clock is never trusted
    return path


def stored(cache: Cache, source: Path, content: bytes = b"content") -> Recipe:
    sources = Sources()
    sources.read(source)
    made = Recipe({"thing": cache.add([content], ".thing")}, {"word": "value"})
    cache.store(KEY, made, sources.identities)
    return made


def leftovers(cache: Cache) -> list[Path]:
    return list((cache.root / "making").iterdir())


def test_what_was_stored_is_found(cache: Cache, source: Path) -> None:
    made = stored(cache, source)
    assert cache.recipe(KEY) == made
    assert made.objects["thing"].read_bytes() == b"content"
    assert cache.recipe("1" * 64) is None
    assert leftovers(cache) == []


def test_equal_contents_are_one_object(cache: Cache) -> None:
    assert cache.add([b"con", b"tent"], ".x") == cache.add([b"content"], ".x")
    assert cache.add([b"content"], ".x").name.startswith("ed7002b439e9ac84")


def test_a_changed_source_is_noticed(cache: Cache, source: Path) -> None:
    stored(cache, source)
    source.write_bytes(b"made of that")
    os.utime(source, (LONG_AGO, LONG_AGO))  # same size, same time
    assert cache.recipe(KEY) is None


def test_a_removed_source_is_noticed(cache: Cache, source: Path) -> None:
    stored(cache, source)
    source.unlink()
    assert cache.recipe(KEY) is None


def test_a_source_that_was_just_changed_is_not_trusted(cache: Cache, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"now")
    stored(cache, fresh)
    assert cache.recipe(KEY) is None


@pytest.mark.parametrize("keep", [0, 3])
def test_a_cut_object_is_not_given(cache: Cache, source: Path, keep: int) -> None:
    path = stored(cache, source).objects["thing"]
    path.chmod(0o644)
    os.truncate(path, keep)
    assert cache.recipe(KEY) is None
    assert cache.add([b"content"], ".thing").read_bytes() == b"content"


def test_a_damaged_object_is_not_given(cache: Cache, source: Path) -> None:
    path = stored(cache, source).objects["thing"]
    path.chmod(0o644)
    path.write_bytes(b"CONTENT")
    assert cache.recipe(KEY) is None
    assert cache.add([b"content"], ".thing").read_bytes() == b"content"


def test_an_object_that_was_only_touched_is_given(cache: Cache, source: Path) -> None:
    made = stored(cache, source)
    made.objects["thing"].touch()
    assert cache.recipe(KEY) == made


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b'{"inputs": 1}', b'{"inputs": {}, "objects": {"x": []}}']
)
def test_a_damaged_recipe_is_no_recipe(cache: Cache, source: Path, text: bytes) -> None:
    stored(cache, source)
    (cache.root / "recipes" / f"{KEY}.json").write_bytes(text)
    assert cache.recipe(KEY) is None
    assert [path.name for path in cache.prune()] == [f"{KEY}.json"]


def test_a_failed_tree_leaves_nothing(cache: Cache) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_bytes(b"x")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.tree("name", fail)
    assert cache.trees() == leftovers(cache) == []


def test_a_tree_is_made_once_by_many_threads(cache: Cache) -> None:
    calls = []

    def make(directory: Path) -> None:
        calls.append(directory)
        time.sleep(0.05)
        (directory / "file").write_bytes(b"x")

    threads = [threading.Thread(target=cache.tree, args=("name", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert [path.name for path in cache.trees()] == ["name"]


# Says when it is in the middle of a tree, and stays there.
MAKER = """
import sys, time
from pathlib import Path
from pyvirt.running.guest.cache import Cache

def make(directory):
    (directory / "half").write_bytes(b"x")
    print("half", flush=True)
    time.sleep(60)

Cache(Path(sys.argv[1])).tree("name", make)
"""


def test_a_killed_maker_leaves_nothing_to_see_and_no_lock(cache: Cache) -> None:
    command = [sys.executable, "-c", MAKER, cache.root]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"half\n"
        assert cache.trees() == []
        abandoned = leftovers(cache)
        assert len(abandoned) == 1
        os.utime(abandoned[0], (LONG_AGO, LONG_AGO))
        cache.add([b"x"], ".x")
        assert leftovers(cache) == abandoned, "its maker lives, and may be slow"
        maker.send_signal(signal.SIGKILL)
    cache.tree("name", lambda directory: (directory / "whole").touch())
    assert [path.name for path in (cache.root / "trees/name").iterdir()] == ["whole"]
    assert leftovers(cache) == []


def test_a_lock_excludes_other_threads(cache: Cache) -> None:
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        with cache.lock("name"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def age(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (LONG_AGO, LONG_AGO))


def test_pruning_keeps_what_is_used(cache: Cache) -> None:
    tree = cache.tree("used", lambda directory: (directory / "file").write_bytes(b"x") and None)
    old = cache.tree("old", lambda directory: (directory / "file").touch())
    time.sleep(0.03)
    made = stored(cache, tree / "file")
    alone = cache.add([b"alone"], ".x")
    age(tree, old, alone, made.objects["thing"])
    assert sorted(cache.prune()) == sorted([old, alone])
    assert cache.recipe(KEY) == made
    assert not old.exists()


def test_pruning_removes_what_was_not_used(cache: Cache, source: Path) -> None:
    made = stored(cache, source)
    recipe = cache.root / "recipes" / f"{KEY}.json"
    age(recipe, made.objects["thing"])
    assert sorted(cache.prune()) == sorted([recipe, made.objects["thing"]])
    assert cache.recipe(KEY) is None


def test_using_a_recipe_keeps_it(cache: Cache, source: Path) -> None:
    made = stored(cache, source)
    age(cache.root / "recipes" / f"{KEY}.json", made.objects["thing"])
    assert cache.recipe(KEY) == made
    assert cache.prune() == []


def test_everything_can_be_removed(cache: Cache, source: Path) -> None:
    stored(cache, source)
    cache.tree("tree", lambda directory: (directory / "file").touch())
    cache.remove()
    cache.remove()
    assert [path for path in cache.root.rglob("*") if path.is_file()] == [
        cache.root / "locks/tree-tree"
    ]
    assert stored(cache, source) == cache.recipe(KEY)
