"""Root file systems that are there already, the default one, and what apt's files say."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from rootfs_tars import entry, tar

from pyvirt.errors import Cancelled, RootFSError, SpecError, ToolError, UnsupportedError
from pyvirt.rootfs import (
    Busybox,
    Debian,
    Directory,
    IdMap,
    IdRange,
    LoopImage,
    Overlay,
    RootFS,
    Tarball,
)
from pyvirt.rootfs.mirrors import sources
from pyvirt.running.rootfs import Prepared, copying, prepare, require
from pyvirt.running.rootfs.watch import Watch

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")

MAP = IdMap([IdRange(0, 100_000, 65_536)], [IdRange(0, 200_000, 65_536)])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "container"
    path.mkdir()
    return path


def test_a_directory_is_used_where_it_is(tmp_path: Path, place: Path) -> None:
    assert prepare(Directory(tmp_path), place) == Prepared(f"dir:{tmp_path}", owned=False)
    mapped = prepare(Directory(tmp_path), place, idmap=MAP)
    assert mapped.options == ("idmap=container",)


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (Directory, "missing", "is not there"),
        (Directory, "file", "is no directory"),
        (LoopImage, "missing", "is not there"),
        (LoopImage, "folder", "is no file"),
        (Overlay, "missing", "is not there"),
    ],
)
@root
def test_what_is_not_there_is_told(
    tmp_path: Path, place: Path, make: type[RootFS], name: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RootFSError) as caught:
        prepare(make(tmp_path / name), place)  # type: ignore[call-arg]
    assert str(caught.value) == f"{tmp_path / name}: {reason}"
    assert list(place.iterdir()) == []


@root
def test_a_copy_is_the_same_in_all_that_counts(tmp_path: Path, place: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(mode=0o711)
    (source / "sub").mkdir()
    (source / "sub/tool").write_bytes(b"#!")
    os.chown(source / "sub/tool", 5, 6)
    (source / "sub/tool").chmod(0o4711)
    capability = bytes.fromhex("0100000200200000" + "0" * 24)
    os.setxattr(source / "sub/tool", "security.capability", capability)
    os.link(source / "sub/tool", source / "again")
    (source / "link").symlink_to("/etc")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with (source / "holes").open("wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
    os.utime(source / "sub", (1, 2))
    prepare(Directory(source, copy=True), place)
    copy = place / "rootfs"
    assert facts(copy) == facts(source)
    assert (copy / "holes").stat().st_blocks < 1000
    assert (copy / "again").stat().st_ino == (copy / "sub/tool").stat().st_ino


def facts(top: Path) -> dict[str, object]:
    found = {}
    for path in [top, *top.rglob("*")]:
        s = path.lstat()
        found[str(path.relative_to(top))] = (
            s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_size, s.st_mtime_ns, s.st_rdev,
            copying.attributes(path), path.is_symlink() and os.readlink(path),
        )  # fmt: skip
    return found


@root
def test_a_copy_that_is_cancelled_leaves_nothing(tmp_path: Path, place: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(200):
        (source / str(number)).write_bytes(b"x")
    told: list[str] = []
    with pytest.raises(Cancelled):
        prepare(Directory(source, copy=True), place, progress=lambda what, _: told.append(what),
                cancel=lambda: len(told) > 1)  # fmt: skip
    assert told == ["copying (64 files)", "copying (128 files)"]
    assert list(place.iterdir()) == []


@root
def test_the_default_is_a_busybox_over_a_tree_that_many_share(place: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    kind, lower, upper = prepare(Busybox(), place).source.split(":")
    assert (kind, upper) == ("overlay", f"{place}/rootfs")
    assert prepare(Busybox(), tmp_path / "other").source.split(":")[1] == lower
    said = subprocess.run(["chroot", lower, "/bin/sh", "-c", "ls /etc; id -un"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert said.stdout.split()[-1] == "root"
    assert (Path(lower) / "sbin/init").resolve().name == "busybox"


@root
def test_the_default_with_ids_of_its_own_lies_beside_the_containers(place: Path) -> None:
    prepared = prepare(Busybox(), place, idmap=MAP)
    kind, lower, upper = prepared.source.split(":")
    assert (kind, upper, prepared.options) == ("overlay", f"{place}/rootfs", ("userxattr",))
    assert Path(lower).is_relative_to(place.parent / ".bases")
    assert (Path(lower) / "usr/bin/busybox").stat().st_uid == 100_000
    assert (Path(lower) / "usr/bin/sh").lstat().st_gid == 200_000


@root
def test_an_overlay_for_ids_of_its_own_belongs_to_them(tmp_path: Path, place: Path) -> None:
    (tmp_path / "root.tar").write_bytes(tar("d/", entry("d/s", uid=1, gid=2, mode=0o4755)))
    prepared = prepare(Overlay(Tarball(tmp_path / "root.tar")), place, idmap=MAP)
    _, lower, upper = prepared.source.split(":")
    status = (Path(lower) / "d/s").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (100_001, 200_002, 0o4755)
    assert (Path(upper).stat().st_uid, (place / "work").stat().st_gid) == (100_000, 200_000)
    assert prepared.options == ("userxattr",)


@root
def test_an_overlay_is_made_anew_when_its_base_changed(tmp_path: Path, place: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    tree.chmod(0o751)
    (tree / "deep/file").write_text("1")
    found = []
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        if text != (tree / "deep/file").read_text():
            (tree / "deep/file").write_text(text)
        (place / name).mkdir()
        lower = prepare(Overlay(tree), place / name, idmap=MAP).source.split(":")[1]
        assert (Path(lower) / "deep/file").read_text() == text
        found.append(lower)
        assert stat.S_IMODE((place / name / "rootfs").stat().st_mode) == 0o751
    assert found[0] == found[1] != found[2]
    direct = prepare(Overlay(tree), place).source.split(":")[1]
    assert direct == str(tree)


@root
def test_overlays_cannot_have_colons_in_their_paths(tmp_path: Path, place: Path) -> None:
    (tmp_path / "a:b").mkdir()
    with pytest.raises(RootFSError, match="has a ':' or ',' in its path"):
        prepare(Overlay(tmp_path / "a:b"), place)


@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="needs mksquashfs")
def test_images_are_mounted_by_liblxc(tmp_path: Path, place: Path) -> None:
    (tmp_path / "tree").mkdir()
    squash, ext4 = tmp_path / "a.squashfs", tmp_path / "a.ext4"
    subprocess.run(["mksquashfs", tmp_path / "tree", squash, "-quiet"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "tree", ext4, "4M"], check=True)
    assert prepare(LoopImage(squash), place) == Prepared(f"loop:{squash}", ("ro",), owned=False)
    assert prepare(LoopImage(ext4), place) == Prepared(f"loop:{ext4}", owned=False)
    assert prepare(LoopImage(ext4, readonly=True), place).options == ("ro",)
    with pytest.raises(UnsupportedError):
        prepare(LoopImage(ext4), place, idmap=MAP)


@root
def test_a_root_without_its_init_is_told(tmp_path: Path, place: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "sbin").symlink_to("/usr/bin")
    for rootfs in (Directory(tree), Overlay(tree)):
        (place / str(rootfs)[:3]).mkdir()
        prepared = prepare(rootfs, place / str(rootfs)[:3])
        with pytest.raises(RootFSError) as caught:
            require(prepared, "/sbin/init")
        assert caught.value.reason == "has no /sbin/init; name a command, or another init"
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/init").symlink_to("../lib/init")
    with pytest.raises(RootFSError):
        require(prepared, "/sbin/init")
    (tree / "usr/lib/init").touch()
    require(prepare(Directory(tree), place), "/sbin/init")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RootFSError, match="has no /init; it is empty"):
        require(prepare(Directory(tmp_path / "empty"), place), "/init")


STANZA = """
Types: deb
# A comment.
URIs: http://mirror/debian
Suites: bookworm
  bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://mirror/debian-security
Suites: bookworm-security
Components: main

Types: deb deb-src
Enabled: no
URIs: http://off/debian
Suites: bookworm
Components: main
"""
LIST = """
# deb http://old/debian bookworm main
deb [arch=amd64] http://vendor/apt bookworm stable
deb [arch=amd64] http://mirror/ports bookworm main contrib
"""


def test_a_suite_comes_from_where_the_hosts_apt_gets_it() -> None:
    lists = [("debian.sources", STANZA), ("more.list", LIST)]
    key = "[signed-by=/usr/share/keyrings/archive.gpg] "
    assert sources(lists, "bookworm", ("main",)) == [
        f"deb {key}http://mirror/debian bookworm main",
        f"deb {key}http://mirror/debian bookworm-updates main",
        "deb http://mirror/debian-security bookworm-security main",
        "deb [arch=amd64] http://mirror/ports bookworm main",
    ]
    assert sources(lists, "trixie", ("main", "contrib")) == [
        f"deb {key}http://mirror/debian trixie main contrib"
    ]
    assert sources([], "trixie", ("main",)) == []


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (lambda: Debian("Book worm"), "suite", "Book worm"),
        (lambda: Debian("sid", ["a b"]), "packages[0]", "a b"),
        (lambda: Debian("sid", ["--x"]), "packages[0]", "--x"),
        (lambda: Debian("sid", variant="huge"), "variant", "huge"),
        (lambda: IdMap([IdRange(0, 1, 5), IdRange(4, 9, 1)], []), "uids", 4),
    ],
)
def test_wrong_fields_are_named(make: object, field: str, value: object) -> None:
    with pytest.raises(SpecError) as caught:
        make()  # type: ignore[operator]
    assert (caught.value.field, caught.value.value) == (field, value)


def stranded(name: str) -> list[str]:
    """The processes whose command line has *name* in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if name.encode() in words:
            found.append(words.replace(b"\0", b" ").decode())
    return found


@root
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap")
class TestMmdebstrap:
    def test_cancelled_it_is_killed_and_leaves_nothing(self, place: Path) -> None:
        stop = threading.Event()
        told: list[str] = []

        def progress(what: str, done: float | None) -> None:
            told.append(what)
            if "apt-get update" in what:
                stop.set()

        with pytest.raises(Cancelled):
            prepare(Debian("bookworm", variant="extract"), place, progress=progress,
                    cancel=stop.is_set)  # fmt: skip
        assert list(place.iterdir()) == []
        for _ in range(200):
            if not stranded(str(place)):
                break
            time.sleep(0.05)
        assert stranded(str(place)) == []
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        assert [line for line in mounts if str(place) in line] == []

    def test_its_refusal_is_told_in_its_words(self, place: Path) -> None:
        with pytest.raises(ToolError) as caught:
            prepare(Debian("no-such-suite", variant="extract"), place)
        assert (caught.value.program, caught.value.what) == ("mmdebstrap", "no-such-suite")
        assert "E: " in caught.value.words
        assert list(place.iterdir()) == []


def test_a_cancel_that_never_comes_costs_nothing() -> None:
    told: list[object] = []
    watch = Watch("x", lambda *facts: told.append(facts), lambda: False)
    watch.tell("working", 0.5)
    assert told == [("working", 0.5)]
