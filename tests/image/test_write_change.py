"""Images that are changed in place: every act, with qemu-img as the judge of the result."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from writes import MIB, image, info, io, names, run, sound

from pyvirt.errors import ImageError, SpecError, ToolError
from pyvirt.image import (
    Encrypt,
    KeySlot,
    amend,
    bitmap_add,
    bitmap_clear,
    bitmap_disable,
    bitmap_enable,
    bitmap_merge,
    bitmap_remove,
    commit,
    convert,
    create,
    rebase,
    resize,
    snapshot_apply,
    snapshot_create,
    snapshot_delete,
    snapshot_list,
)

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="no qemu-img here")

QUICK = Encrypt("geheim", iter_time=0.01)


@pytest.fixture(scope="module")
def luks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LUKS volume of 16 MiB, to be copied: QEMU takes seconds to make one."""
    source = image(tmp_path_factory.mktemp("luks") / "a.qcow2", "16M", data="write -P 7 0 1M")
    return convert(source, source.with_name("a.luks"), "luks", encrypt=QUICK).path


def bitmaps(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = info(path)["format-specific"]["data"].get("bitmaps", [])
    return found


@pytest.mark.parametrize("format", ["raw", "qcow2", "qed"])
def test_an_image_grows_and_keeps_what_it_holds(tmp_path: Path, format: str) -> None:
    source = image(tmp_path / "a.qcow2", "8M", data="write -P 7 0 1M")
    path = convert(source, tmp_path / "b", format).path
    assert resize(path, "+8M", format).size == 16 * MIB
    out = convert(path, tmp_path / "c.raw", "raw", source_format=format)
    io(out.path, "read -P 7 0 1M", "read -P 0 1M 15M", format="raw")
    assert names(tmp_path) == ["a.qcow2", "b", "c.raw"]


def test_a_luks_volume_grows_and_shrinks(tmp_path: Path, luks: Path) -> None:
    path = tmp_path / "a"
    shutil.copy(luks, path)
    for size, shrink in (("+8M", False), ("4M", True)):
        resize(path, size, "luks", key="geheim", shrink=shrink)
    out = convert(path, tmp_path / "c.raw", "raw", source_format="luks", key="geheim")
    assert out.size == 4 * MIB
    io(out.path, "read -P 7 0 1M", format="raw")


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_an_image_shrinks_only_when_that_is_meant(tmp_path: Path, format: str) -> None:
    path = create(tmp_path / "a", "16M", format).path
    with pytest.raises(SpecError) as caught:
        resize(path, "4M", format)
    assert caught.value.field == "size"
    assert caught.value.reason == "is less than 16777216; shrink=True loses the rest"
    assert resize(path, "4M", format, shrink=True).size == 4 * MIB


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("mode", ["falloc", "full"])
def test_what_is_added_can_be_set_aside(tmp_path: Path, format: str, mode: str) -> None:
    path = create(tmp_path / "a", "1M", format).path
    assert resize(path, "8M", format, preallocation=mode).allocated >= 7 * MIB


def test_an_odd_size_is_rounded_up_to_sectors(tmp_path: Path) -> None:
    path = create(tmp_path / "a", 1000, "raw").path
    assert resize(path, 5000, "raw").size == 5120


def test_a_huge_image_grows_without_a_copy(tmp_path: Path) -> None:
    path = create(tmp_path / "a.qcow2", "1T").path
    made = resize(path, "64T")
    assert made.size == 64 << 40
    assert made.allocated < 4 * MIB
    sound(path)


def test_commit_moves_everything_down(tmp_path: Path) -> None:
    base = image(tmp_path / "base.qcow2", "16M")
    top = create(tmp_path / "top.qcow2", "24M", backing="base.qcow2", backing_format="qcow2").path
    io(top, "write -P 9 1M 1M", "write -z 2M 1M", "write -P 4 20M 1M")
    assert commit(top).allocated < MIB
    for path in (base, top):
        io(path, "read -P 7 0 1M", "read -P 9 1M 1M", "read -P 0 2M 1M", "read -P 4 20M 1M")
        sound(path)
    assert info(top)["backing-filename"] == "base.qcow2"
    assert info(base)["virtual-size"] == 24 * MIB
    assert names(tmp_path) == ["base.qcow2", "top.qcow2"]


def test_commit_into_raw_and_without_emptying(tmp_path: Path) -> None:
    (tmp_path / "base.raw").write_bytes(b"\7" * MIB)
    top = create(tmp_path / "top.qcow2", "2M", backing="base.raw", backing_format="raw").path
    io(top, "write -P 9 512K 1M")
    before = top.stat().st_size
    commit(top, empty=False, rate="1G")
    assert (tmp_path / "base.raw").read_bytes()[: 2 * MIB] == (
        b"\7" * (MIB // 2) + b"\x09" * MIB + b"\0" * (MIB // 2)
    )
    assert top.stat().st_size >= before


def test_commit_leaves_the_rest_of_the_chain(tmp_path: Path) -> None:
    base = image(tmp_path / "0.qcow2", "16M")
    middle = create(tmp_path / "1.qcow2", backing="0.qcow2", backing_format="qcow2").path
    top = create(tmp_path / "2.qcow2", backing="1.qcow2", backing_format="qcow2").path
    io(top, "write -P 9 1M 1M")
    before = base.read_bytes()
    commit(top)
    assert base.read_bytes() == before
    io(middle, "read -P 7 0 1M", "read -P 9 1M 1M", "read -P 7 2M 2M")


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ("16M 16M 16M", "relative"),
        ("8M 12M 16M", "absolute"),
        ("16M 4M 16M", "relative"),
        ("16M 20M 8M", "relative"),
    ],
)
def test_commit_goes_down_many_layers_as_qemu_does(
    tmp_path: Path, sizes: str, named: str
) -> None:
    """The content of the base, and of the top, that ``qemu-img commit -b`` would make."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for place in ours, theirs:
        (place / "below").mkdir(parents=True)
        prefix = "" if named == "relative" else f"{place}/"
        low, middle, high = sizes.split()
        image(place / "below" / "0.qcow2", low, data="write -P 7 1M 7M")
        lowest = "0.qcow2" if named == "relative" else place / "below" / "0.qcow2"
        create(place / "below" / "1.qcow2", middle, backing=lowest, backing_format="qcow2")
        io(place / "below" / "1.qcow2", "write -P 8 2M 1M", "write -z 3M 1M")
        create(place / "2.qcow2", high, backing=f"{prefix}below/1.qcow2", backing_format="qcow2")
        io(place / "2.qcow2", "write -P 9 512K 1M", "write -z 5M 1M")
    before = convert(ours / "2.qcow2", tmp_path / "before", "raw").path.read_bytes()
    base = Path("below/0.qcow2")
    run("qemu-img", "commit", "-q", "-f", "qcow2", "-b", theirs / base, theirs / "2.qcow2")
    made = commit(ours / "2.qcow2", base=ours / base)
    assert made.allocated < MIB
    for path in (ours / base, ours / "2.qcow2"):
        sound(path)
    contents = [
        convert(place / base, place / "raw", "raw").path.read_bytes() for place in (ours, theirs)
    ]
    assert contents[0] == contents[1]
    assert convert(ours / "2.qcow2", tmp_path / "after", "raw").path.read_bytes() == before
    below = info(ours / "2.qcow2")["backing-filename"]
    assert below == (str(ours / base) if named == "absolute" else str(base))


def test_commit_to_the_next_image_by_name_is_that_of_no_name(tmp_path: Path) -> None:
    base = image(tmp_path / "base.qcow2", "16M")
    top = create(tmp_path / "top.qcow2", backing="base.qcow2", backing_format="qcow2").path
    io(top, "write -P 9 1M 1M")
    commit(top, base=base)
    io(base, "read -P 7 0 1M", "read -P 9 1M 1M")
    assert info(top)["backing-filename"] == "base.qcow2"


def test_commit_to_a_stranger_is_refused(tmp_path: Path) -> None:
    image(tmp_path / "base.qcow2", "16M")
    top = create(tmp_path / "top.qcow2", backing="base.qcow2", backing_format="qcow2").path
    for other in image(tmp_path / "other.qcow2"), tmp_path / "none":
        with pytest.raises(ImageError) as caught:
            commit(top, base=other)
        assert (caught.value.path, caught.value.reason) == (other, f"is not below {top}")


def test_commit_needs_something_below(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        commit(create(tmp_path / "a.qcow2", "1M"))
    assert caught.value.reason == "has no backing image in a file"


def test_rebase_keeps_what_the_guest_sees(tmp_path: Path) -> None:
    image(tmp_path / "old.qcow2", "16M")
    image(tmp_path / "new.qcow2", "16M", data="write -P 8 2M 4M")
    top = create(tmp_path / "top.qcow2", backing="old.qcow2", backing_format="qcow2").path
    io(top, "write -P 9 1M 1M")
    rebase(top, "new.qcow2", "qcow2")
    assert info(top)["backing-filename"] == "new.qcow2"
    seen = ("read -P 7 0 1M", "read -P 9 1M 1M", "read -P 7 2M 2M", "read -P 0 4M 12M")
    io(top, *seen)
    rebase(top, None)
    assert "backing-filename" not in info(top)
    io(top, *seen)
    sound(top)
    assert names(tmp_path) == ["new.qcow2", "old.qcow2", "top.qcow2"]


def test_an_unsafe_rebase_only_changes_the_name(tmp_path: Path) -> None:
    image(tmp_path / "old.qcow2")
    top = create(tmp_path / "top.qcow2", backing="old.qcow2", backing_format="qcow2").path
    (tmp_path / "old.qcow2").rename(tmp_path / "moved.qcow2")
    rebase(top, tmp_path / "moved.qcow2", "qcow2", safe=False)
    io(top, "read -P 7 0 4M")
    with pytest.raises(SpecError, match="safe must be true"):
        rebase(top, None, safe=False)


def test_qed_is_rebased_on_a_copy(tmp_path: Path) -> None:
    image(tmp_path / "base.qcow2", "4M")
    top = tmp_path / "top.qed"
    create(top, "4M", "qed", backing="base.qcow2", backing_format="qcow2")
    rebase(top, None, format="qed")
    io(top, "read -P 7 0 4M", format="qed")
    assert names(tmp_path) == ["base.qcow2", "top.qed"]


def test_snapshots_come_and_go(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2")
    snapshot_create(path, "first")
    io(path, "write -P 8 0 4M")
    snapshot_create(path, "second")
    assert [one.name for one in snapshot_list(path)] == ["first", "second"]
    snapshot_apply(path, "first")
    io(path, "read -P 7 0 4M")
    sound(path)
    snapshot_delete(path, "first")
    snapshot_apply(path, "second")
    io(path, "read -P 8 0 4M")
    sound(path)
    assert [one.name for one in snapshot_list(path)] == ["second"]
    assert names(tmp_path) == ["a.qcow2"]


def test_a_snapshot_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2")
    before = path.read_bytes()
    with pytest.raises(ImageError) as caught:
        snapshot_apply(path, "none")
    assert caught.value.reason == "has no snapshot 'none'"
    snapshot_create(path, "s")
    with pytest.raises(ImageError, match="has already a snapshot 's'"):
        snapshot_create(path, "s")
    with pytest.raises(SpecError, match="format must be qcow2"):
        snapshot_create(path, "s", "raw")
    with pytest.raises(SpecError, match="name must be text"):
        snapshot_create(path, "")
    snapshot_delete(path, "s")
    assert info(path)["virtual-size"] == 64 * MIB
    assert len(before) <= path.stat().st_size


def test_bitmaps_are_added_switched_merged_and_removed(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2")
    bitmap_add(path, "one", granularity="128K")
    bitmap_add(path, "two", enabled=False)
    found = {one["name"]: one for one in bitmaps(path)}
    assert found["one"]["granularity"] == 128 * 1024
    assert found["one"]["flags"] == ["auto"]
    assert found["two"]["flags"] == []
    bitmap_enable(path, "two")
    bitmap_disable(path, "one")
    assert {one["name"]: one["flags"] for one in bitmaps(path)} == {"one": [], "two": ["auto"]}
    bitmap_merge(path, "two", ["one"])
    bitmap_clear(path, "two")
    bitmap_remove(path, "one")
    assert [one["name"] for one in bitmaps(path)] == ["two"]
    sound(path)
    with pytest.raises(ToolError, match="one"):
        bitmap_remove(path, "one")


def test_a_bitmap_of_another_image_is_merged(tmp_path: Path) -> None:
    path, other = image(tmp_path / "a.qcow2"), image(tmp_path / "b.qcow2")
    bitmap_add(path, "here")
    bitmap_add(other, "there")
    bitmap_merge(path, "here", "there", source_image=other)
    sound(path)


@pytest.mark.parametrize(
    ("name", "more", "field"),
    [
        ("", {}, "name"),
        ("x" * 1024, {}, "name"),
        ("x", {"granularity": 100}, "granularity"),
        ("x", {"granularity": "3K"}, "granularity"),
    ],
)
def test_a_wrong_bitmap_is_refused(
    tmp_path: Path, name: str, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(SpecError) as caught:
        bitmap_add(tmp_path / "x", name, **more)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("before", "change", "field", "expected"),
    [
        ({"compat": "v2"}, {"compat": "v3"}, "compat", "1.1"),
        ({}, {"compat": "0.10"}, "compat", "0.10"),
        ({}, {"lazy_refcounts": True}, "lazy-refcounts", True),
        ({}, {"refcount_bits": 64}, "refcount-bits", 64),
        ({"data_file": "d"}, {"data_file": "e"}, "data-file", "e"),
        ({"data_file": "d", "data_file_raw": True}, {"data_file_raw": False}, "data-file-raw",
         False),
    ],
)  # fmt: skip
def test_every_option_that_can_be_amended(
    tmp_path: Path, before: Any, change: Any, field: str, expected: Any
) -> None:
    path = create(tmp_path / "a.qcow2", "8M", **before).path
    if "data_file" in change:
        shutil.copy(tmp_path / "d", tmp_path / "e")
        expected = str(tmp_path / "e")
    amend(path, **change)
    assert info(path)["format-specific"]["data"][field] == expected
    if not before.get("data_file"):
        sound(path)


def test_passphrases_are_added_and_erased(tmp_path: Path, luks: Path) -> None:
    path = tmp_path / "a"
    shutil.copy(luks, path)
    amend(path, "luks", key="geheim", keys=KeySlot("active", new="neu", iter_time=0.01))
    amend(path, "luks", key="neu", keys=KeySlot("inactive", old="geheim"))
    convert(path, tmp_path / "out.raw", "raw", source_format="luks", key="neu")
    before = path.read_bytes()
    with pytest.raises(ToolError, match="Invalid password"):
        convert(path, tmp_path / "x.raw", "raw", source_format="luks", key="geheim")
    with pytest.raises(ToolError):
        amend(path, "luks", key="neu", keys=KeySlot("inactive", old="neu"))
    assert path.read_bytes() == before
    amend(path, "luks", key="neu", force=True, keys=KeySlot("inactive", slot=1))


def test_external_data_grows_with_its_image(tmp_path: Path) -> None:
    path = create(tmp_path / "a.qcow2", "4M", data_file="d.raw", data_file_raw=True).path
    io(path, "write -P 7 0 1M")
    assert resize(path, "8M").size == 8 * MIB
    io(path, "read -P 7 0 1M")
